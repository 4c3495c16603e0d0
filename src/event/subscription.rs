//! The consumer side: reads a source's log and submits it to the write side, batch by batch.
//!
//! The subscription holds no state of its own that matters: whatever happens, it starts again from the cursors in the
//! database. It refuses to skip anything: an event that cannot be processed stops its partition, and a source that has
//! lost data stops the whole subscription, both loudly.

use std::{
    collections::BTreeSet, convert::Infallible, future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    Outbox, Progress, SubscriptionState, cursor,
    membership::Membership,
    reader::{Reader, Stop},
};
use crate::{
    backoff::Backoff,
    contract::meshwork::event::v1::{Event, GroupLifetime, event_service_client::EventServiceClient},
    rpc::Transport,
    store::{Database, Topic},
    write::{Decider, Writer},
};

/// Between attempts to reach the source: quick at first, because a drained instance has siblings, and back within 2 s of the
/// source's return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// What to read, and how to understand it.
pub struct Source<D: Decider> {
    /// The service whose events are read; also the name of its cursors.
    pub name: &'static str,
    /// Who reads: the consumer's service name, or `<service>/<view_id>` for a private view.
    pub group: String,
    /// How long the source remembers the group.
    pub lifetime: GroupLifetime,
    /// Wanted event types (full message names). Empty: all.
    pub types: Vec<String>,
    /// Turns an event into an input.
    pub decode: fn(&Event) -> Result<D::Input, MalformedEvent>,
}

/// An event that the consumer does not understand. It stops the event's partition.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MalformedEvent {
    /// What is wrong with it.
    pub reason: String,
}

impl MalformedEvent {
    /// An event that is malformed for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// A running subscription. Dropped, it is aborted; [`stop`](Self::stop) also waits for its end.
pub struct Subscription {
    progress: Progress,
    partitions: watch::Receiver<BTreeSet<u32>>,
    stopping: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Subscription {
    /// Starts to read `source` through `client`. The writer's database must be `outbox`'s: it holds the cursors.
    pub fn start<D, T>(client: EventServiceClient<T>, outbox: Outbox, writer: Writer<D>, source: Source<D>) -> Self
    where
        D: Decider,
        T: Transport,
    {
        let progress = Progress::default();
        let stopping = CancellationToken::new();
        let membership = outbox.memberships().join(source.name);
        let partitions = membership.partitions.clone();
        let followed = follow(outbox.database().clone(), source.name, progress.clone());
        let reported = progress.clone().report(source.name, source.group.clone());
        let reader = Reader { client, outbox, writer, source: Arc::new(source), progress: progress.clone() };
        let stop = stopping.clone();
        let reading = async move {
            let (source, progress) = (reader.source.name, reader.progress.clone());
            let mut membership = membership;
            // A batch under way is either committed or not; both are fine, because the cursor says which.
            let running = AssertUnwindSafe(run(reader, &mut membership)).catch_unwind();
            let ended = tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = running => ended,
                never = followed => match never {},
            };
            if ended.is_err() {
                tracing::error!(source, "the code that reads events panicked: the subscription is stopped");
                progress.set_state(SubscriptionState::Stopped("a defect: the code that reads events panicked".into()));
            }
            membership.leave().await;
            // If it has ended by itself, its lag is told until somebody stops it.
            stop.cancelled().await;
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = reading => {}
                never = reported => match never {},
            }
        });
        Self { progress, partitions, stopping, task: Some(task) }
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The partitions that this instance reads at the moment; its siblings read the others.
    pub fn partitions(&self) -> BTreeSet<u32> {
        self.partitions.borrow().clone()
    }

    /// Stops reading, and leaves its partitions to the other instances.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(task) = self.task.take() {
            // An error is a panic; it was reported by the panic hook.
            let _ = task.await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run<D, T>(mut reader: Reader<D, T>, membership: &mut Membership)
where
    D: Decider,
    T: Transport,
{
    let source = reader.source.name;
    let mut backoff = BACKOFF;
    loop {
        let before = reader.progress.snapshot().applied;
        let stop = reader.read(&mut membership.partitions).await;
        let was = reader.progress.snapshot();
        // Not by having connected: a batch that fails each time must not be repeated without a pause.
        if was.applied != before {
            backoff.reset();
        }
        match stop {
            Stop::Moved => reader.progress.set_state(SubscriptionState::Connecting(None)),
            Stop::Retry(error) => {
                // That the registry is not there yet is said by whoever registers, once for the whole process.
                if matches!(was.state, SubscriptionState::Connecting(_)) {
                    tracing::debug!(source, error, "the subscription could not be opened; it is tried again");
                } else {
                    tracing::info!(source, error, "the subscription is interrupted; it is opened again");
                }
                reader.progress.set_state(SubscriptionState::Connecting(Some(error)));
            }
            Stop::WriterClosed => {
                reader.progress.set_state(SubscriptionState::Connecting(Some("shutting down".into())));
                return;
            }
            Stop::DataLoss(error) => {
                tracing::error!(source, error, "the source has lost data: the subscription is stopped");
                reader.progress.set_state(SubscriptionState::Stopped(error));
                return;
            }
        }
        sleep(backoff.next(rand::random())).await;
    }
}

/// What other processes fold into the same database is progress here too.
async fn follow(database: Database, source: &'static str, progress: Progress) -> Infallible {
    let Some(peers) = database.peers() else { return pending().await };
    let mut heard = peers.heard(Topic::Log);
    loop {
        heard.changed().await.expect("the database is held here");
        match cursor::load(&database, source).await {
            Ok(cursors) => progress.applied(cursor::positions(&cursors)),
            Err(error) => tracing::debug!(source, %error, "cursors could not be read; it is tried again"),
        }
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::DataLoss => Self::DataLoss(status.message().to_owned()),
            _ => Self::Retry(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}
