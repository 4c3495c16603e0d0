//! One connection of a subscription: opens the stream, starts the partitions, and hands batches to the writer.
//!
//! Batches are pipelined: the next is in the writer's queue while the one before is committed. Each claims the range that
//! follows the one before, so that a batch whose predecessor failed is fenced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::Span;

use super::{
    CursorMove, Outbox, Position, Progress, Source, SubscriptionState,
    cursor::{self, Cursor},
    session::MAX_BATCH_EVENTS,
};
use crate::{
    contract::meshwork::event::v1::{
        Ack, Batch, Credit, Event, Open, Opened, PartitionHead, Start, Stop as StopPartition, SubscribeRequest,
        SubscribeResponse, event_service_client::EventServiceClient, subscribe_request::Action, subscribe_response,
    },
    rpc::Transport,
    store::StoreError,
    trace::TraceContext,
    write::{Caused, Decider, WriteError, Writer},
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
/// A fenced partition is read by somebody else at the moment, or its cursor has just moved; look again after this.
const FENCED_PAUSE: Duration = Duration::from_millis(250);

/// Why a connection ended.
pub(super) enum Stop {
    /// The source asked to move, or ended the stream.
    Moved,
    /// Something that passes.
    Retry(String),
    /// This instance is shutting down.
    WriterClosed,
    /// The source is not what the cursors say.
    DataLoss(String),
}

pub(super) struct Reader<D: Decider, T> {
    pub(super) client: EventServiceClient<T>,
    pub(super) outbox: Outbox,
    pub(super) writer: Writer<D>,
    pub(super) source: Arc<Source<D>>,
    pub(super) progress: Progress,
}

/// What one committed, or failed, batch means for its stream.
struct Committed {
    claim: CursorMove,
    cost: u32,
    result: Result<(), Failure>,
}

enum Failure {
    Fenced,
    Refused(String),
    Store(String),
    Closed,
}

/// The state of one connection.
struct Connection<'a, D: Decider> {
    outbox: &'a Outbox,
    writer: &'a Writer<D>,
    source: &'a Source<D>,
    progress: &'a Progress,
    requests: mpsc::Sender<SubscribeRequest>,
    store_id: String,
    /// Partition => where its next batch must begin.
    reading: BTreeMap<u32, u64>,
    /// Partitions to start again once the pause is over.
    fenced: BTreeSet<u32>,
    resume_at: Option<Instant>,
    /// Partitions with an event that cannot be processed.
    stopped: BTreeSet<u32>,
    committing: FuturesUnordered<BoxFuture<'static, Committed>>,
    returned_credit: u32,
    unacked: BTreeMap<u32, u64>,
}

impl<D, T> Reader<D, T>
where
    D: Decider,
    T: Transport,
{
    /// Reads until the connection ends, and says why.
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
        let (Opened { store_id, heads }, responses) =
            opened.map_err(|_| Stop::Retry("the source is silent".into()))??;
        send(&requests, Action::Credit(Credit { events: CREDIT }))?;

        self.progress.set_store(&store_id);
        self.progress.heads(heads.iter().map(head));
        let connection = Connection {
            outbox: &self.outbox,
            writer: &self.writer,
            source: &self.source,
            progress: &self.progress,
            requests,
            store_id,
            reading: BTreeMap::new(),
            fenced: BTreeSet::new(),
            resume_at: None,
            stopped: BTreeSet::new(),
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
    ) -> Result<std::convert::Infallible, Stop> {
        let assigned = partitions.borrow_and_update().clone();
        self.assign(&assigned).await?;
        self.progress.set_state(SubscriptionState::Running);
        let mut silent_at = Instant::now() + SILENCE_LIMIT;
        loop {
            let resume_at = self.resume_at.unwrap_or(silent_at);
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
                () = sleep_until(resume_at), if self.resume_at.is_some() => {
                    self.resume_at = None;
                    let fenced = std::mem::take(&mut self.fenced);
                    let still_assigned = fenced.intersection(&partitions.borrow().clone()).copied().collect();
                    self.start(&still_assigned).await?;
                }
                () = sleep_until(silent_at) => return Err(Stop::Retry("the source is silent".into())),
            }
        }
    }

    /// Starts the partitions that were given to this instance, and stops those that were taken away.
    async fn assign(&mut self, assigned: &BTreeSet<u32>) -> Result<(), Stop> {
        let known: BTreeSet<u32> = self.reading.keys().chain(&self.fenced).copied().collect();
        for partition in known.difference(assigned) {
            self.reading.remove(partition);
            self.fenced.remove(partition);
            self.stop(*partition)?;
        }
        let new = assigned.iter().filter(|p| !known.contains(p) && !self.stopped.contains(p)).copied().collect();
        self.start(&new).await
    }

    /// Starts partitions where their cursors stand.
    async fn start(&mut self, partitions: &BTreeSet<u32>) -> Result<(), Stop> {
        let loaded = cursor::load(self.outbox.database(), self.source.name).await;
        let cursors = loaded.map_err(|error| Stop::Retry(error.to_string()))?;
        self.progress.applied(cursor::positions(&cursors));
        for partition in partitions {
            let none = Cursor { store_id: self.store_id.clone(), position: 0 };
            let Cursor { store_id, position } = cursors.get(partition).cloned().unwrap_or(none);
            self.reading.insert(*partition, position);
            // With the cursor's store id, so that the source notices if it is another.
            let store_id = if position == 0 { self.store_id.clone() } else { store_id };
            self.request(Action::Start(Start { partition: *partition, store_id, after: position }))?;
        }
        Ok(())
    }

    async fn receive(&mut self, response: SubscribeResponse) -> Result<(), Stop> {
        match response.event {
            Some(subscribe_response::Event::Batch(batch)) => self.submit(batch).await,
            Some(subscribe_response::Event::Heartbeat(heartbeat)) => {
                self.progress.heads(heartbeat.heads.iter().map(head));
                self.acknowledge()
            }
            // A newer source may have more to say than this consumer understands.
            Some(subscribe_response::Event::Opened(_)) | None => Ok(()),
        }
    }

    /// Puts a batch into the writer's queue.
    async fn submit(&mut self, batch: Batch) -> Result<(), Stop> {
        if batch.events.len() > MAX_BATCH_EVENTS {
            return Err(Stop::Retry(format!("the source sent {} events in one batch", batch.events.len())));
        }
        let cost = u32::try_from(batch.events.len().max(1)).unwrap_or(u32::MAX);
        self.progress.heads([Position { partition: batch.partition, position: batch.through }]);
        let Some(next) = self.reading.get_mut(&batch.partition) else {
            // Sent before the source knew that the partition was stopped.
            return self.return_credit(cost);
        };
        if *next != batch.after {
            self.fence(batch.partition)?;
            return self.return_credit(cost);
        }
        *next = batch.through;
        // Spans of the events, until they are committed.
        let spans: Vec<Span> = batch.events.iter().map(span).collect();
        let caused = |(event, span): (&Event, &Span)| {
            let trace_parent = TraceContext::of(span).map_or_else(|| event.trace_parent.clone(), |at| at.to_string());
            (self.source.decode)(event).map(|input| Caused { input, trace_parent })
        };
        let inputs: Result<Vec<_>, _> = batch.events.iter().zip(&spans).map(caused).collect();
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(malformed) => {
                self.give_up(batch.partition, &malformed.to_string())?;
                return self.return_credit(cost);
            }
        };
        let claim = CursorMove {
            source: self.source.name,
            store_id: self.store_id.clone(),
            partition: batch.partition,
            after: batch.after,
            through: batch.through,
        };
        let answer = self.writer.enqueue_consumed(inputs, claim.clone()).await.map_err(|_| Stop::WriterClosed)?;
        self.committing.push(
            async move {
                let result = match answer.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(WriteError::Fenced)) => Err(Failure::Fenced),
                    Ok(Err(WriteError::Refused(refusal))) => Err(Failure::Refused(refusal.to_string())),
                    Ok(Err(WriteError::Store(error))) => Err(match *error {
                        // Also where the commit's outcome is unknown: the cursor says it.
                        StoreError::Unavailable(_) | StoreError::Conflict(_) | StoreError::CommitUnknown(_) => {
                            Failure::Store(error.to_string())
                        }
                        _ => Failure::Refused(with_cause(&*error)),
                    }),
                    Ok(Err(WriteError::Closed)) | Err(_) => Err(Failure::Closed),
                };
                drop(spans);
                Committed { claim, cost, result }
            }
            .boxed(),
        );
        Ok(())
    }

    fn committed(&mut self, Committed { claim, cost, result }: Committed) -> Result<(), Stop> {
        self.return_credit(cost)?;
        match result {
            Ok(()) => {
                self.progress.applied([Position { partition: claim.partition, position: claim.through }]);
                self.unacked.insert(claim.partition, claim.through);
                Ok(())
            }
            Err(Failure::Fenced) => self.fence(claim.partition),
            Err(Failure::Refused(reason)) => self.give_up(claim.partition, &reason),
            Err(Failure::Store(error)) => {
                tracing::warn!(source = self.source.name, error, "events could not be stored; it is tried again");
                Err(Stop::Retry(error))
            }
            Err(Failure::Closed) => Err(Stop::WriterClosed),
        }
    }

    /// Stops a partition, to start it again from its cursor after a pause.
    fn fence(&mut self, partition: u32) -> Result<(), Stop> {
        if self.reading.remove(&partition).is_none() {
            return Ok(());
        }
        self.fenced.insert(partition);
        self.resume_at.get_or_insert_with(|| Instant::now() + FENCED_PAUSE);
        self.stop(partition)
    }

    /// Stops a partition because of an event that cannot be processed.
    fn give_up(&mut self, partition: u32, reason: &str) -> Result<(), Stop> {
        self.reading.remove(&partition);
        self.stopped.insert(partition);
        let source = self.source.name;
        tracing::error!(source, partition, reason, "an event cannot be processed: its partition is stopped");
        self.progress.set_state(SubscriptionState::Stopped(format!("partition {partition}: {reason}")));
        self.stop(partition)
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

/// The folding of an event, as part of the trace that the event belongs to.
fn span(event: &Event) -> Span {
    let span = tracing::debug_span!(
        "consume",
        otel.name = event.r#type,
        otel.kind = "consumer",
        event_id = event.event_id,
        partition = event.partition,
        position = event.position
    );
    if !span.is_disabled()
        && let Ok(parent) = event.trace_parent.parse::<TraceContext>()
    {
        parent.adopt(&span);
    }
    span
}

fn send(requests: &mpsc::Sender<SubscribeRequest>, action: Action) -> Result<(), Stop> {
    let sent = requests.try_send(SubscribeRequest { action: Some(action) });
    sent.map_err(|_| Stop::Retry("the source takes no more requests".into()))
}

/// For people who must find out why: the database's own words as well.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn head(head: &PartitionHead) -> Position {
    Position { partition: head.partition, position: head.head }
}
