//! One connection of a subscription: opens the stream, starts the partitions, and hands batches to the writer.
//!
//! Batches are pipelined: the next is in the writer's queue while the one before is committed. Each claims the range that
//! follows the one before, so that a batch whose predecessor failed is fenced.
//!
//! ```text
//!   Start ──> reading ── commit ──> reading ...
//!    ^           │ fenced: a moment ─────────────────────────┐
//!    │           │ refused: once more, event by event ───────┤
//!    │           │ the store refuses one event: backoff ─────┤   (stuck, RETRYING)
//!    │           │ one event is poison: half a minute ───────┤   (stuck, STOPPED)
//!    └───────────┴── paused <────────────────────────────────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use meshwork::{
    contract::meshwork::event::v1::{
        Ack, Batch, Credit, Event, Open, Opened, PartitionHead, Start, Started, Stop as StopPartition,
        SubscribeRequest, SubscribeResponse, event_service_client::EventServiceClient, subscribe_request::Action,
        subscribe_response,
    },
    rpc::Transport,
    trace::TraceContext,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::Span;

use super::{
    EventName, Progress, Source, Stuck, SubscriptionState,
    claims::{self, Part},
    failing::Failing,
    failure::{self, Failure},
    progress::ReaderProgress,
    reconcile::MARK,
    stop::Stop,
};
use crate::{
    outbox::{Outbox, PARTITIONS, Position},
    writer::{
        CursorMove, CursorName, Decider, Traced, Writer,
        cursor::{self, Cursor},
    },
};

/// Events under way: enough for eight batches, some 2 MiB.
const CREDIT: u32 = 4096;
/// Credit is given back in portions of this, so that a busy stream is not answered event by event.
const CREDIT_PORTION: u32 = 256;
/// Messages to the source that wait for the transport. They are few (see above); if the source takes none of that many, it
/// hangs.
const MAX_QUEUED_REQUESTS: usize = 1024;
/// Three heartbeats of the source.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// A fenced partition is read by another member at the moment, or its cursor has just moved; look again after this.
const FENCED_PAUSE: Duration = Duration::from_millis(250);
/// Between attempts at an event that needs a person: a new version that understands it may be another instance's already.
pub(super) const STOPPED_PAUSE: Duration = Duration::from_secs(30);
/// A source that answers so often without a word on what was started is one of Meshwork 0.1, which has none.
const HEARTBEATS_WITHOUT_STARTED: u32 = 2;

pub(super) struct Reader<D: Decider, T> {
    pub(super) client: EventServiceClient<T>,
    pub(super) outbox: Outbox,
    pub(super) writer: Writer<D>,
    pub(super) source: Arc<Source<D>>,
    pub(super) cursor: CursorName,
    pub(super) progress: Progress,
    pub(super) own: ReaderProgress,
    pub(super) failing: Failing,
    /// Read again from the cursors, at once.
    pub(super) again: Arc<Notify>,
}

/// What one committed, or failed, claim means for its stream.
struct Committed {
    claim: CursorMove,
    events: usize,
    event: Option<EventName>,
    /// Credit to give back.
    cost: u32,
    result: Result<(), Failure>,
}

/// A cursor that was sent to the source.
struct Told {
    cursor: Cursor,
    /// It is before what was applied: it was set back.
    set_back: bool,
}

/// The state of one connection.
struct Connection<'a, D: Decider> {
    outbox: &'a Outbox,
    writer: &'a Writer<D>,
    source: &'a Source<D>,
    cursor: &'a CursorName,
    progress: &'a Progress,
    own: &'a ReaderProgress,
    failing: &'a mut Failing,
    again: &'a Notify,
    requests: mpsc::Sender<SubscribeRequest>,
    store_id: Arc<str>,
    /// Partition => where its next batch must begin.
    reading: BTreeMap<u32, u64>,
    /// Partitions to start again, and when.
    paused: BTreeMap<u32, Instant>,
    /// Partitions that the source has not accepted yet, with the cursors that were sent to it.
    unconfirmed: BTreeMap<u32, Told>,
    heartbeats: u32,
    committing: FuturesUnordered<BoxFuture<'static, Committed>>,
    returned_credit: u32,
    unacked: BTreeMap<u32, u64>,
}

impl<D, T> Reader<D, T>
where
    D: Decider,
    T: Transport,
{
    /// Reads until the connection ends, and returns why.
    pub(super) async fn read(&mut self, partitions: &mut watch::Receiver<BTreeSet<u32>>) -> Stop {
        match self.connect().await {
            Ok((mut connection, mut responses)) => match connection.run(&mut responses, partitions).await {
                Ok(never) => match never {},
                Err(stop) => stop,
            },
            Err(stop) => stop,
        }
    }

    async fn connect(&mut self) -> Result<(Connection<'_, D>, Streaming<SubscribeResponse>), Stop> {
        let (requests, queue) = mpsc::channel(MAX_QUEUED_REQUESTS);
        let open = Open {
            group: self.source.group.clone(),
            types: self.source.types.clone(),
            lifetime: self.source.lifetime.into(),
        };
        send(&requests, Action::Open(open))?;
        let opening = async {
            let mut responses = self.client.subscribe(ReceiverStream::new(queue)).await?.into_inner();
            let first = responses.message().await?.and_then(|response| response.event);
            let Some(subscribe_response::Event::Opened(opened)) = first else { return Err(Stop::Moved) };
            Ok((opened, responses))
        };
        let opened = timeout(SILENCE_LIMIT, opening).await;
        let (Opened { store_id, heads }, responses) = opened.map_err(|_| silent())??;
        send(&requests, Action::Credit(Credit { events: CREDIT }))?;

        self.progress.opened(&store_id, heads.iter().map(head));
        let connection = Connection {
            outbox: &self.outbox,
            writer: &self.writer,
            source: &self.source,
            cursor: &self.cursor,
            progress: &self.progress,
            own: &self.own,
            failing: &mut self.failing,
            again: &self.again,
            requests,
            store_id: store_id.into(),
            reading: BTreeMap::new(),
            paused: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            heartbeats: 0,
            committing: FuturesUnordered::new(),
            returned_credit: 0,
            unacked: BTreeMap::new(),
        };
        Ok((connection, responses))
    }
}

impl<D: Decider> Connection<'_, D> {
    async fn run(
        &mut self,
        responses: &mut Streaming<SubscribeResponse>,
        partitions: &mut watch::Receiver<BTreeSet<u32>>,
    ) -> Result<Infallible, Stop> {
        let assigned = partitions.borrow_and_update().clone();
        (0..PARTITIONS).filter(|partition| !assigned.contains(partition)).for_each(|partition| self.give_up(partition));
        self.start(&(0..PARTITIONS).collect(), &assigned).await?;
        let mut silent_at = Instant::now() + SILENCE_LIMIT;
        loop {
            let resume_at = self.paused.values().min().copied();
            // Cancel-safe: what an arm did not take stays in its stream, queue or watch.
            tokio::select! {
                Some(committed) = self.committing.next() => self.committed(committed)?,
                response = responses.message() => {
                    let response = response?.ok_or(Stop::Moved)?;
                    self.receive(response).await?;
                    // From here on, because handing a batch to a busy writer may take long.
                    silent_at = Instant::now() + SILENCE_LIMIT;
                }
                changed = partitions.changed() => {
                    changed.map_err(|_| Stop::WriterClosed)?;
                    let assigned = partitions.borrow_and_update().clone();
                    self.assign(&assigned).await?;
                }
                () = sleep_until(resume_at.unwrap_or(silent_at)), if resume_at.is_some() => self.resume().await?,
                () = self.again.notified() => return Err(Stop::Again),
                () = sleep_until(silent_at) => return Err(silent()),
            }
        }
    }

    /// Starts the partitions that were given to this instance, and stops those that were taken away.
    async fn assign(&mut self, assigned: &BTreeSet<u32>) -> Result<(), Stop> {
        let known: BTreeSet<u32> = self.reading.keys().chain(self.paused.keys()).copied().collect();
        for partition in known.difference(assigned) {
            self.give_up(*partition);
            self.stop(*partition)?;
        }
        let new = assigned.difference(&known).copied().collect();
        self.start(&new, &new).await
    }

    /// A partition is another instance's.
    fn give_up(&mut self, partition: u32) {
        self.reading.remove(&partition);
        self.paused.remove(&partition);
        self.failing.forget(partition);
        self.own.unstuck(partition);
    }

    /// Starts the partitions again whose pause is over.
    async fn resume(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        let due: BTreeSet<u32> = self.paused.iter().filter(|(_, at)| **at <= now).map(|(p, _)| *p).collect();
        self.paused.retain(|partition, _| !due.contains(partition));
        self.start(&due, &due).await
    }

    /// Starts partitions where their cursors stand; those that are not `kept` only to hear whether they may stand there. So
    /// every process of a group notices that its source has another past, whichever member reads the partition in which it shows.
    async fn start(&mut self, partitions: &BTreeSet<u32>, kept: &BTreeSet<u32>) -> Result<(), Stop> {
        if partitions.is_empty() {
            return Ok(());
        }
        // Before the cursors are read: they cannot be behind what was applied by then.
        let applied = self.progress.snapshot().applied;
        let mut cursors = cursor::load(self.outbox.database(), self.cursor).await?;
        if cursors.values().any(|cursor| cursor.store_id.starts_with(MARK)) {
            let problem = "a reconcile is in progress, or was not finished: run it again";
            return Err(Stop::DataLoss(problem.to_owned()));
        }
        for partition in partitions {
            let none = || Cursor { store_id: self.store_id.clone(), ..Cursor::default() };
            // With the cursor's store id, so that the source notices if it is another.
            let cursor = cursors.remove(partition).filter(|cursor| cursor.position > 0).unwrap_or_else(none);
            self.request(Action::Start(Start {
                partition: *partition,
                store_id: cursor.store_id.to_string(),
                after: cursor.position,
                after_event_id: cursor.event_id.clone(),
            }))?;
            if kept.contains(partition) {
                self.reading.insert(*partition, cursor.position);
            } else {
                self.stop(*partition)?;
            }
            let set_back = applied.get(*partition as usize).is_some_and(|applied| *applied > cursor.position);
            self.unconfirmed.insert(*partition, Told { cursor, set_back });
        }
        Ok(())
    }

    async fn receive(&mut self, response: SubscribeResponse) -> Result<(), Stop> {
        match response.event {
            Some(subscribe_response::Event::Batch(batch)) => {
                self.confirm(batch.partition, Some(batch.after), "").await?;
                self.submit(&batch).await
            }
            Some(subscribe_response::Event::Started(started)) => {
                let Started { partition, after, after_event_id } = started;
                self.confirm(partition, Some(after), &after_event_id).await
            }
            Some(subscribe_response::Event::Heartbeat(heartbeat)) => {
                self.progress.heads(heartbeat.heads.iter().map(head));
                self.heartbeats += 1;
                if self.heartbeats == HEARTBEATS_WITHOUT_STARTED {
                    for partition in self.unconfirmed.keys().copied().collect::<Vec<_>>() {
                        self.confirm(partition, None, "").await?;
                    }
                }
                self.acknowledge()
            }
            // A newer source may have more to say than this consumer understands.
            Some(subscribe_response::Event::Opened(_)) | None => Ok(()),
        }
    }

    /// The source has accepted a partition's cursor: what was read is its past. `after`: the cursor that it confirmed; an
    /// answer to an earlier start, before the cursor was moved by another process, says nothing about this one.
    async fn confirm(&mut self, partition: u32, after: Option<u64>, event_id: &str) -> Result<(), Stop> {
        let told = self.unconfirmed.get(&partition);
        if told.is_some_and(|told| after.is_some_and(|after| after != told.cursor.position)) {
            return Ok(());
        }
        let Some(Told { cursor, set_back }) = self.unconfirmed.remove(&partition) else { return Ok(()) };
        self.progress.confirmed(Position { partition, position: cursor.position }, set_back);
        if cursor.event_id.is_empty() && !event_id.is_empty() {
            cursor::pin(self.outbox.database(), self.cursor, partition, cursor.position, event_id).await?;
            let (source, position) = (self.source.name, cursor.position);
            tracing::info!(source, partition, position, event_id, "recorded the event at a cursor of Meshwork 0.1");
        }
        if self.unconfirmed.is_empty() {
            self.progress.set_diverged(false);
            self.own.set_state(SubscriptionState::Running);
        }
        Ok(())
    }

    /// Puts a batch into the writer's queue.
    async fn submit(&mut self, batch: &Batch) -> Result<(), Stop> {
        claims::check(batch).map_err(|problem| Stop::Misfit(format!("the source sent a batch {problem}")))?;
        let partition = batch.partition;
        let cost = u32::try_from(batch.events.len().max(1)).unwrap_or(u32::MAX);
        let Some(next) = self.reading.get_mut(&partition) else {
            // Sent before the source knew that the partition was stopped.
            return self.return_credit(cost);
        };
        if *next != batch.after {
            self.pause(partition, FENCED_PAUSE)?;
            return self.return_credit(cost);
        }
        *next = batch.through;
        self.progress.received(batch);
        let one_by_one = self.failing.is_one_by_one(partition, batch.after);
        let decode = |event: &Event| {
            let span = claims::span(event);
            let trace_parent = TraceContext::of(&span).map_or_else(|| event.trace_parent.clone(), |at| at.to_string());
            Ok(((self.source.decode)(event)?, trace_parent, span))
        };
        let (parts, stuck) = claims::parts(batch, one_by_one, decode);
        // All of the credit comes back with the first part that is done.
        let mut cost = Some(cost);
        for part in parts {
            self.enqueue(partition, part, cost.take().unwrap_or_default()).await?;
        }
        if let Some(stuck) = stuck {
            self.stuck(partition, &stuck)?;
        }
        cost.map_or(Ok(()), |cost| self.return_credit(cost))
    }

    async fn enqueue(&mut self, partition: u32, part: Part<(D::Input, String, Span)>, cost: u32) -> Result<(), Stop> {
        let Part { after, through, through_event_id, inputs, event } = part;
        let (mut caused, mut spans) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        for (input, trace_parent, span) in inputs {
            caused.push(Traced { input, trace_parent });
            spans.push(span);
        }
        let (cursor, store_id) = (self.cursor.clone(), self.store_id.clone());
        let claim = CursorMove { cursor, store_id, partition, after, through, through_event_id };
        let answer = self.writer.enqueue_consumed(caused, claim.clone()).await.map_err(|_| Stop::WriterClosed)?;
        let committed = async move {
            let result = match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(Failure::of(error)),
                Err(_) => Err(Failure::Closed),
            };
            // Open until here: the folding of an event ends with its commit.
            let events = spans.len();
            Committed { claim, events, event, cost, result }
        };
        self.committing.push(Box::pin(committed));
        Ok(())
    }

    fn committed(&mut self, Committed { claim, events, event, cost, result }: Committed) -> Result<(), Stop> {
        self.return_credit(cost)?;
        let CursorMove { partition, through, .. } = claim;
        match result {
            Ok(()) => {
                self.progress.applied([Position { partition, position: through }].into_iter());
                self.unacked.insert(partition, through);
                self.recovered(partition, through);
                Ok(())
            }
            Err(Failure::Fenced) => self.pause(partition, FENCED_PAUSE),
            // Given to another instance meanwhile, which will see.
            Err(Failure::Refused { .. }) if !self.has(partition) => Ok(()),
            Err(Failure::Refused { .. }) if events > 1 => {
                self.failing.refused(partition, through);
                self.pause(partition, Duration::ZERO)
            }
            Err(Failure::Refused { reason, poison }) => {
                self.stuck(partition, &Stuck { event, position: through, reason, poison })
            }
            Err(Failure::Store(error)) => Err(Stop::Store(error)),
            Err(Failure::Closed) => Err(Stop::WriterClosed),
        }
    }

    fn has(&self, partition: u32) -> bool {
        self.reading.contains_key(&partition) || self.paused.contains_key(&partition)
    }

    /// A partition has got over what held it up.
    fn recovered(&mut self, partition: u32, through: u64) {
        if self.failing.applied(partition, through) && self.own.unstuck(partition).is_some() {
            tracing::info!(source = self.source.name, partition, position = through, "a partition has recovered");
        }
    }

    /// Pauses a partition because of an event that it does not get over.
    fn stuck(&mut self, partition: u32, stuck: &Stuck) -> Result<(), Stop> {
        let backoff = self.failing.refused(partition, stuck.position);
        let pause = if stuck.poison { STOPPED_PAUSE } else { backoff.next(rand::random()) };
        if self.own.stuck(partition, stuck) {
            failure::say(self.source.name, &self.source.group, partition, stuck);
        }
        self.pause(partition, pause)
    }

    /// Stops a partition, to start it again from its cursor after a pause.
    fn pause(&mut self, partition: u32, pause: Duration) -> Result<(), Stop> {
        let until = Instant::now() + pause;
        if self.reading.remove(&partition).is_some() {
            self.paused.insert(partition, until);
            return self.stop(partition);
        }
        // Claims behind a refused one are fenced, and either may be reported first: the longer pause belongs to the reason.
        if let Some(paused) = self.paused.get_mut(&partition) {
            *paused = until.max(*paused);
        }
        Ok(())
    }

    fn stop(&self, partition: u32) -> Result<(), Stop> {
        self.request(Action::Stop(StopPartition { partition }))
    }

    fn return_credit(&mut self, events: u32) -> Result<(), Stop> {
        self.returned_credit = self.returned_credit.saturating_add(events);
        if self.returned_credit < CREDIT_PORTION {
            return Ok(());
        }
        let events = std::mem::take(&mut self.returned_credit);
        self.request(Action::Credit(Credit { events }))?;
        self.acknowledge()
    }

    /// Tells the source how far this consumer has come: with every heartbeat, and while events flow with every credit.
    fn acknowledge(&mut self) -> Result<(), Stop> {
        for (partition, through) in std::mem::take(&mut self.unacked) {
            self.request(Action::Ack(Ack { partition, through }))?;
        }
        Ok(())
    }

    fn request(&self, action: Action) -> Result<(), Stop> {
        send(&self.requests, action)
    }
}

fn send(requests: &mpsc::Sender<SubscribeRequest>, action: Action) -> Result<(), Stop> {
    let sent = requests.try_send(SubscribeRequest { action: Some(action) });
    sent.map_err(|_| Stop::Retry("the source takes no more requests".into()))
}

fn silent() -> Stop {
    Stop::Retry(format!("the source has been silent for {} s", SILENCE_LIMIT.as_secs()))
}

fn head(head: &PartitionHead) -> Position {
    Position { partition: head.partition, position: head.head }
}
