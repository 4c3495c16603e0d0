//! The consumer side reads a source's log and submits it to the write side, batch by batch.
//!
//! The subscription has no state that matters: whatever happens, it starts again from the cursors in the
//! database. It refuses to skip anything: an event that cannot be processed stops its partition, and a source that has
//! lost data stops the whole subscription, both with an ERROR; both are retried now and then, since the problem may have
//! been fixed.

use std::{
    collections::BTreeSet, convert::Infallible, future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt as _;
use meshwork::{
    backoff::Backoff,
    cause::with_causes,
    contract::meshwork::event::v1::event_service_client::EventServiceClient,
    health::{Condition, Conditioner},
    log_limit::LogLimit,
    rpc::Transport,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    MAX_UNREAD_AGE, Past, Progress, SubscriptionState,
    consumer_group::Member,
    failing::Failing,
    group,
    progress::ReaderProgress,
    reader::{Reader, STOPPED_PAUSE},
    report,
    source::Source,
    stop::Stop,
};
use crate::{
    outbox::Outbox,
    store::{Database, Topic},
    writer::{CursorName, Decider, Writer, cursor},
};

/// Between attempts to reach the source: quick at first, because a drained instance has siblings, and back within 2 s of the
/// source's return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// A running subscription. Dropping it aborts it; [`stop`](Self::stop) also waits for its end.
pub struct Subscription {
    source: &'static str,
    group: String,
    past: Past,
    partitions: watch::Receiver<BTreeSet<u32>>,
    condition: Condition,
    again: Arc<Notify>,
    stopping: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Subscription {
    /// Starts to read `source` through `client`. The writer's database must be `outbox`'s: it holds the cursors.
    pub fn start<D, T>(client: EventServiceClient<T>, outbox: Outbox, writer: Writer<D>, source: Source<D>) -> Self
    where
        D: Decider,
        T: Transport,
    {
        let progress = outbox.progress(source.name, &source.group);
        let (sender, partitions) = watch::channel(BTreeSet::new());
        let (stopping, again) = (CancellationToken::new(), Arc::new(Notify::new()));
        let conditioner = Conditioner::default();
        let (name, group, condition) = (source.name, source.group.clone(), conditioner.condition());
        let past = Past::new(progress.clone(), &client);
        let reading = Reading { client, outbox, writer, source: Arc::new(source), progress, again: again.clone() };
        let task = AbortOnDropHandle::new(tokio::spawn(reading.run(sender, conditioner, stopping.clone())));
        Self { source: name, group, past, partitions, condition, again, stopping, task }
    }

    /// The service whose events it reads.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// The group that reads.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The progress of its group.
    pub fn progress(&self) -> &Progress {
        self.past.progress()
    }

    /// Checks position tokens against the past that it has read.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Whether it is healthy: not stopped, and not behind by an event that is older than [`MAX_UNREAD_AGE`], unless its source is
    /// away.
    ///
    /// [`MAX_UNREAD_AGE`]: super::MAX_UNREAD_AGE
    pub fn condition(&self) -> Condition {
        self.condition.clone()
    }

    /// The name under which a server reports its condition: `events/<source>`.
    pub fn health_name(&self) -> String {
        format!("events/{}", self.source)
    }

    /// The partitions that this instance reads at the moment; the other members of its group read the rest.
    pub fn partitions(&self) -> BTreeSet<u32> {
        self.partitions.borrow().clone()
    }

    /// The partitions that this instance reads, as they change.
    pub(super) fn watch_partitions(&self) -> watch::Receiver<BTreeSet<u32>> {
        self.partitions.clone()
    }

    /// Makes it read again from its cursors at once, whatever it is waiting for.
    pub(super) fn again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// Stops reading, and leaves its partitions to the other instances.
    pub async fn stop(self) {
        self.stopping.cancel();
        // An error is a panic; it was reported by the panic hook.
        let _ = self.task.await;
    }
}

/// What a subscription's task is made of.
struct Reading<D: Decider, T> {
    client: EventServiceClient<T>,
    outbox: Outbox,
    writer: Writer<D>,
    source: Arc<Source<D>>,
    progress: Progress,
    again: Arc<Notify>,
}

impl<D: Decider, T: Transport> Reading<D, T> {
    async fn run(self, sender: watch::Sender<BTreeSet<u32>>, conditioner: Conditioner, stopping: CancellationToken) {
        let Self { client, outbox, writer, source, progress, again } = self;
        let own = progress.reader();
        let database = outbox.database().clone();
        let named = cursor_name(&database, source.name, &source.group, &own, &conditioner);
        let Some(cursor) = stopping.run_until_cancelled(named).await else { return };
        let mut member = outbox.consumer_groups().join(cursor.clone(), sender);
        let followed = follow(database.clone(), cursor.clone(), progress.clone(), again.clone());
        let (name, told, failing) = (source.name, progress.clone(), Failing::default());
        let reported = report::run(database, cursor.clone(), name, &source.group, &told, &conditioner);
        let mut reader =
            Reader { client, outbox, writer, source: source.clone(), cursor, progress, own, failing, again };
        let reading = async {
            // A batch under way is either committed or not; both are fine, because the cursor says which.
            let running = AssertUnwindSafe(read(&mut reader, &mut member)).catch_unwind();
            let ended = tokio::select! {
                () = stopping.cancelled() => Ok(()),
                ended = running => ended,
                never = followed => match never {},
            };
            let problem = match ended {
                Err(_) => "a defect: the code that reads events panicked",
                Ok(()) => "what it needs has ended: the writer, or its membership in the group",
            };
            if !stopping.is_cancelled() {
                tracing::error!(source = name, problem, "the subscription is stopped");
                reader.own.set_state(SubscriptionState::Stopped(problem.to_owned()));
            }
            member.leave().await;
            // If it has ended, its state is reported until it is stopped.
            stopping.cancelled().await;
        };
        tokio::select! {
            () = reading => {}
            never = reported => match never {},
        }
    }
}

/// The name of a group's cursors, as soon as the store returns it.
async fn cursor_name(
    database: &Database,
    source: &str,
    group: &str,
    own: &ReaderProgress,
    conditioner: &Conditioner,
) -> CursorName {
    let (begun, mut backoff) = (Instant::now(), BACKOFF);
    loop {
        let error = match group::cursor_name(database, source, group).await {
            Ok(name) => {
                own.set_state(SubscriptionState::Connecting(None));
                return name;
            }
            Err(error) => with_causes(&error),
        };
        let problem = format!("the group's cursors cannot be found: {error}");
        if !matches!(own.state(), SubscriptionState::Retrying(_)) {
            tracing::warn!(source, group, error, "the group's cursors cannot be found; retrying");
        }
        own.set_state(SubscriptionState::Retrying(problem.clone()));
        if begun.elapsed() > MAX_UNREAD_AGE {
            conditioner.set(Err(problem));
        }
        sleep(backoff.next(rand::random())).await;
    }
}

async fn read<D, T>(reader: &mut Reader<D, T>, member: &mut Member)
where
    D: Decider,
    T: Transport,
{
    let source = reader.source.name;
    let mut backoff = BACKOFF;
    // A source that comes and goes, and a store that does.
    let (interrupted, not_stored) = (LogLimit::new(5), LogLimit::new(5));
    loop {
        let before = reader.progress.snapshot().applied;
        let stop = reader.read(&mut member.partitions).await;
        // Not by having connected: a batch that fails each time must not be repeated without a pause.
        if reader.progress.snapshot().applied != before {
            backoff.reset();
        }
        let was = reader.own.state();
        let mut pause = backoff.next(rand::random());
        match stop {
            Stop::Moved => reader.own.set_state(SubscriptionState::Connecting(None)),
            Stop::Retry(error) => {
                // The registration logs that the registry is not there yet, once for the whole process.
                if matches!(was, SubscriptionState::Connecting(_)) {
                    tracing::debug!(source, error, "the subscription could not be opened; retrying");
                } else {
                    if let Some(left_out) = interrupted.pass() {
                        tracing::info!(source, error, "the subscription was interrupted; reopening it{left_out}");
                    }
                }
                reader.own.set_state(SubscriptionState::Connecting(Some(error)));
            }
            Stop::Store(error) => {
                if !matches!(was, SubscriptionState::Retrying(_))
                    && let Some(left_out) = not_stored.pass()
                {
                    tracing::warn!(source, error, "events could not be stored; retrying{left_out}");
                }
                reader.own.set_state(SubscriptionState::Retrying(error));
            }
            Stop::Again => {
                backoff.reset();
                continue;
            }
            Stop::WriterClosed => {
                reader.own.set_state(SubscriptionState::Connecting(Some("stopping".into())));
                return;
            }
            Stop::Misfit(error) => {
                stopped(reader, &error, "the source and this reader do not fit together");
                pause = STOPPED_PAUSE;
            }
            Stop::DataLoss(error) => {
                let source = reader.source.name;
                let problem = format!(
                    "the source has lost events that this service has read; run \"meshwork reconcile {source}\""
                );
                stopped(reader, &error, &problem);
                reader.progress.set_diverged(true);
                pause = STOPPED_PAUSE;
            }
            Stop::Expired(error) => {
                stopped(reader, &error, "the source has pruned events that this service has not read");
                reader.progress.set_diverged(true);
                pause = STOPPED_PAUSE;
            }
        }
        let until = Instant::now() + pause;
        tokio::select! {
            () = sleep_until(until) => {}
            () = reader.again.notified() => {}
        }
    }
}

/// The subscription needs a person, which is logged once.
fn stopped<D: Decider, T>(reader: &Reader<D, T>, error: &str, problem: &str) {
    let stopped = SubscriptionState::Stopped(error.to_owned());
    if reader.own.state() != stopped {
        let (source, group) = (reader.source.name, &reader.source.group);
        tracing::error!(source, group, error, "the subscription is stopped: {problem}");
    }
    reader.own.set_state(stopped);
}

/// What other processes fold into the same database is progress here too; and where a cursor was set back, as by a restore
/// of this service's database, it is read `again` from there, although no event may come to show it.
async fn follow(database: Database, cursor: CursorName, progress: Progress, again: Arc<Notify>) -> Infallible {
    let Some(notifier) = database.notifier() else { return pending().await };
    let mut notified = notifier.subscribe(Topic::Log);
    loop {
        notified.changed().await.expect("the database is held here");
        let before = progress.snapshot().applied;
        match cursor::load(&database, &cursor).await {
            Ok(cursors) => {
                if progress.followed(&before, cursor::positions(&cursors)) {
                    tracing::warn!(cursor = &*cursor, "cursors were set back: events are read again from there");
                    again.notify_one();
                }
            }
            Err(error) => tracing::debug!(cursor = &*cursor, %error, "cursors could not be read; retrying"),
        }
    }
}
