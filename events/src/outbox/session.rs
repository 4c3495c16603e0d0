//! A session is one subscriber's stream: it knows which partitions the subscriber reads, from where, and on how much credit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use meshwork::{
    cause::with_causes,
    contract::meshwork::event::v1::{
        Batch, Event, GetPositionRequest, Heartbeat, LogPosition, Open, Opened, PartitionHead, Start, Started,
        SubscribeRequest, SubscribeResponse, subscribe_request::Action, subscribe_response,
    },
    health::Condition,
    log_limit::{LogLimit, MAX_CAUSES},
    rpc::{Domain, draining_status, not_serving_status},
};
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{Outbox, PARTITIONS, Position, Standing};
use crate::store::StoreError;

pub(crate) const DOMAIN: Domain = Domain::new("event.meshwork");
/// The reason of the error that what stood at a position was pruned.
pub(crate) const CURSOR_EXPIRED: &str = "CURSOR_EXPIRED";
/// Events of one batch: a write batch of the consumer, some 300 KiB.
pub(crate) const MAX_BATCH_EVENTS: usize = 512;
/// Bytes of one batch, unless its first event alone has more: a message may have 4 MiB.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The most credit that is kept, by the contract.
const MAX_CREDIT: usize = 65_536;
/// The most wanted types, by the contract.
const MAX_TYPES: usize = 64;
/// The longest name of a type, by the contract.
const MAX_TYPE_LEN: usize = 256;
/// A stream that is not opened for this long occupies a place in vain. Our subscribers open in their first message.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// The longest name of a group, by the contract.
const MAX_GROUP_LEN: usize = 128;
/// Bytes of one event, so that a message can carry it: 4 MiB, less what is around it.
const MAX_SENT_EVENT: usize = (4 << 20) - (64 << 10);
/// How long a partition rests whose next event cannot be sent. A heartbeat wakes the stream for the next look.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);
/// Shows that the stream lives; subscribers give up after three.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Session {
    outbox: Outbox,
    requests: Streaming<SubscribeRequest>,
    draining: CancellationToken,
    serving: Condition,
    published: watch::Receiver<()>,
    heartbeat: Interval,
    open_by: Instant,
    /// `None` until the subscriber has opened.
    types: Option<Vec<String>>,
    /// Partition => the last event sent.
    started: BTreeMap<u32, Sent>,
    /// Where the next search for a batch begins, so that a busy partition does not starve the others.
    next_partition: u32,
    /// Partitions whose next event cannot be sent, and when it is tried again.
    unreadable: BTreeMap<u32, Instant>,
    credit: usize,
}

/// Up to where a partition was sent, or where the subscriber stood before.
#[derive(Clone)]
struct Sent {
    position: u64,
    event_id: String,
}

/// Why a partition's next events cannot be sent.
enum ReadError {
    /// One of them is not an event, is not there, or is too large: why, in a few words.
    Damaged(String),
    /// The stream ends with this.
    Ends(Status),
}

impl Session {
    pub(crate) fn new(
        outbox: Outbox,
        requests: Streaming<SubscribeRequest>,
        draining: CancellationToken,
        serving: Condition,
    ) -> Self {
        let published = outbox.published();
        let mut heartbeat = interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Self {
            outbox,
            requests,
            draining,
            serving,
            published,
            heartbeat,
            open_by: Instant::now() + OPEN_LIMIT,
            types: None,
            started: BTreeMap::new(),
            next_partition: 0,
            unreadable: BTreeMap::new(),
            credit: 0,
        }
    }

    /// The next response; `None` when the subscriber has closed its side.
    pub(crate) async fn next(&mut self) -> Result<Option<SubscribeResponse>, Status> {
        loop {
            // Seen before the log is read: what is published in between wakes again.
            self.published.mark_unchanged();
            self.outbox.check_not_set_back().map_err(|error| unavailable(&error))?;
            if let Some(problem) = self.serving.problem() {
                return Err(not_serving_status(&problem));
            }
            if let Some(batch) = self.batch().await? {
                return Ok(Some(response(subscribe_response::Event::Batch(batch))));
            }
            // All arms are cancel-safe: a request, tick or wake-up that was not taken stays where it is.
            tokio::select! {
                biased;
                () = self.draining.cancelled() => return Err(draining_status()),
                () = self.serving.changed() => {}
                request = self.requests.next() => match request.transpose()?.map(|request| request.action) {
                    None => return Ok(None),
                    Some(action) => if let Some(answer) = self.act(action).await? {
                        return Ok(Some(response(answer)));
                    },
                },
                changed = self.published.changed() => changed.expect("the outbox outlives its sessions"),
                () = sleep_until(self.open_by), if self.types.is_none() => {
                    return Err(DOMAIN.error(Code::DeadlineExceeded, "NOT_OPENED", "no `open` came in time"));
                }
                _ = self.heartbeat.tick(), if self.types.is_some() => {
                    let heartbeat = Heartbeat { heads: self.heads().collect() };
                    return Ok(Some(response(subscribe_response::Event::Heartbeat(heartbeat))));
                }
            }
        }
    }

    async fn act(&mut self, action: Option<Action>) -> Result<Option<subscribe_response::Event>, Status> {
        match action {
            Some(Action::Open(open)) => {
                return self.open(open).await.map(subscribe_response::Event::Opened).map(Some);
            }
            Some(_) if self.types.is_none() => return Err(protocol("the first message must be `open`")),
            Some(Action::Start(start)) => {
                return self.start(&start).await.map(subscribe_response::Event::Started).map(Some);
            }
            Some(Action::Stop(stop)) => drop(self.started.remove(&stop.partition)),
            Some(Action::Credit(credit)) => {
                self.credit = self.credit.saturating_add(credit.events as usize).min(MAX_CREDIT);
            }
            // Retention and lag are measured where the log is cleaned up; a position here moves nothing.
            Some(Action::Ack(_)) => {}
            None => return Err(protocol("the message has no action that this server knows")),
        }
        Ok(None)
    }

    async fn open(&mut self, open: Open) -> Result<Opened, Status> {
        let printable = open.group.bytes().all(|byte| byte.is_ascii_graphic());
        if open.group.is_empty() || open.group.len() > MAX_GROUP_LEN || !printable {
            return Err(DOMAIN.invalid_field("INVALID_FIELD", "open.group", "must be 1-128 visible ASCII characters"));
        }
        if open.types.len() > MAX_TYPES {
            return Err(DOMAIN.invalid_field("INVALID_FIELD", "open.types", "must be at most 64"));
        }
        if open.types.iter().any(|name| name.len() > MAX_TYPE_LEN) {
            return Err(DOMAIN.invalid_field("INVALID_FIELD", "open.types", "must be full names of up to 256 bytes"));
        }
        if self.types.replace(open.types).is_some() {
            return Err(protocol("`open` was sent twice"));
        }
        let mut bases = self.outbox.bases().await.map_err(|error| unavailable(&error))?;
        let with_base = |head: PartitionHead| {
            let base = bases.remove(&head.partition).unwrap_or_default();
            PartitionHead { base: base.position, base_event_id: base.event_id, ..head }
        };
        Ok(Opened { store_id: self.outbox.store_id().to_owned(), heads: self.heads().map(with_base).collect() })
    }

    async fn start(&mut self, start: &Start) -> Result<Started, Status> {
        let Start { partition, ref store_id, after, ref after_event_id } = *start;
        self.unreadable.remove(&partition);
        if partition >= PARTITIONS {
            return Err(DOMAIN.invalid_field("INVALID_FIELD", "start.partition", "must be one that `opened` named"));
        }
        let any_store = store_id.is_empty() && after == 0;
        if !any_store && store_id != self.outbox.store_id() {
            let message = "the cursor belongs to another store: this service's data was replaced";
            return Err(DOMAIN.error(Code::DataLoss, "STORE_CHANGED", message));
        }
        let standing = self.outbox.standing(Position { partition, position: after }).await;
        match standing.map_err(|error| unavailable(&error))? {
            Standing::Event(_) if after == 0 && self.base(partition).await? > 0 => Err(expired(partition, after)),
            Standing::Event(there) if after_event_id.is_empty() || there == *after_event_id => {
                self.started.insert(partition, Sent { position: after, event_id: there.clone() });
                Ok(Started { partition, after, after_event_id: there })
            }
            Standing::Event(there) => Err(diverged(partition, after, after_event_id, &there)),
            Standing::Beyond { head } => {
                let message =
                    format!("partition {partition} was read up to {after}, but its head is {head}: events were lost");
                Err(DOMAIN.error(Code::DataLoss, "CURSOR_BEYOND_HEAD", message))
            }
            Standing::Pruned => Err(expired(partition, after)),
        }
    }

    /// Up to where a partition was pruned.
    async fn base(&self, partition: u32) -> Result<u64, Status> {
        let mut bases = self.outbox.bases().await.map_err(|error| unavailable(&error))?;
        Ok(bases.remove(&partition).map_or(0, |base| base.position))
    }

    /// The next batch of any started partition, if there are events and credit for it.
    async fn batch(&mut self) -> Result<Option<Batch>, Status> {
        let limit = self.credit.min(MAX_BATCH_EVENTS);
        if limit == 0 || self.draining.is_cancelled() {
            return Ok(None);
        }
        let Some((partition, sent, events)) = self.read_any(limit).await? else { return Ok(None) };
        let after = sent.position;
        let types = self.types.as_deref().unwrap_or_default();
        let wanted = |event: &Event| types.is_empty() || types.contains(&event.r#type);
        let events = &events[..batch_len(&events, wanted)];
        let Some(last) = events.last() else { return Ok(None) };
        let (through, through_event_id) = (last.position, last.event_id.clone());
        self.started.insert(partition, Sent { position: through, event_id: through_event_id.clone() });
        self.next_partition = partition + 1;
        let events: Vec<Event> = events.iter().filter(|e| wanted(e)).map(|event| Event::clone(event)).collect();
        self.credit -= events.len().max(1);
        Ok(Some(Batch { partition, after, through, events, through_event_id }))
    }

    /// Events of any started partition that has some, and can be read.
    async fn read_any(&mut self, limit: usize) -> Result<Option<(u32, Sent, Vec<Arc<Event>>)>, Status> {
        let now = Instant::now();
        self.unreadable.retain(|_, again| *again > now);
        loop {
            let heads = self.outbox.heads();
            let behind = |(partition, sent): (&u32, &Sent)| {
                let is_behind = heads[*partition as usize] > sent.position && !self.unreadable.contains_key(partition);
                is_behind.then(|| (*partition, sent.clone()))
            };
            let later = self.started.range(self.next_partition..).find_map(behind);
            let Some((partition, sent)) = later.or_else(|| self.started.iter().find_map(behind)) else {
                return Ok(None);
            };
            let mut read = self.read_on(partition, &sent, limit).await;
            if limit > 1 && matches!(read, Err(ReadError::Damaged(_))) {
                // One by one up to the one that cannot be.
                read = self.read_on(partition, &sent, 1).await;
            }
            match read {
                Ok(events) => return Ok(Some((partition, sent, events))),
                Err(ReadError::Ends(status)) => return Err(status),
                Err(ReadError::Damaged(problem)) => {
                    let position = sent.position + 1;
                    // Each subscriber that comes again finds it; a line for each partition.
                    static LIMIT: LogLimit = LogLimit::new(PARTITIONS);
                    if let Some(left_out) = LIMIT.pass_once((partition, position)) {
                        tracing::error!(
                            partition,
                            position,
                            problem,
                            "an event of the log cannot be sent: its partition is withheld from all subscribers and retried every 30 s{left_out}"
                        );
                    }
                    self.unreadable.insert(partition, now + UNREADABLE_PAUSE);
                }
            }
        }
    }

    /// Up to `limit` events behind what was sent, if that is still the log's past: a database can be replaced by an older copy
    /// under a running process.
    async fn read_on(&self, partition: u32, sent: &Sent, limit: usize) -> Result<Vec<Arc<Event>>, ReadError> {
        let (begin, last) = sent.position.checked_sub(1).map_or((0, 0), |before| (before, 1));
        let events = self.outbox.read(Position { partition, position: begin }, limit + last).await;
        let mut events = events.map_err(|error| match error {
            StoreError::Decode { .. } => ReadError::Damaged(error.to_string()),
            error => ReadError::Ends(unavailable(&error)),
        })?;
        if events.first().is_some_and(|first| first.position == sent.position) {
            let there = events.remove(0);
            if there.event_id != sent.event_id {
                return Err(ReadError::Ends(diverged(partition, sent.position, &sent.event_id, &there.event_id)));
            }
        }
        // Behind a gap, or an event that no message could carry, nothing is sent.
        let good = |(expected, event): &(u64, &Arc<Event>)| {
            event.position == *expected && event.encoded_len() <= MAX_SENT_EVENT
        };
        let count = (sent.position + 1..).zip(&events).take(limit).take_while(good).count();
        if count == 0 {
            return Err(self.missing(partition, sent.position, events.first()).await);
        }
        events.truncate(count);
        Ok(events)
    }

    /// Why the event behind this position cannot be sent, although the head is beyond it.
    async fn missing(&self, partition: u32, after: u64, next: Option<&Arc<Event>>) -> ReadError {
        if let Some(event) = next.filter(|event| event.position == after + 1) {
            return ReadError::Damaged(format!("it has {} bytes", event.encoded_len()));
        }
        match self.base(partition).await {
            Ok(base) if base > after => ReadError::Ends(expired(partition, after)),
            Ok(_) => ReadError::Damaged("it is missing".to_owned()),
            Err(status) => ReadError::Ends(status),
        }
    }

    fn heads(&self) -> impl Iterator<Item = PartitionHead> + use<> {
        let heads = (0..).zip(self.outbox.heads());
        heads.map(|(partition, head)| PartitionHead { partition, head, ..PartitionHead::default() })
    }
}

/// How many events fit into one batch.
fn batch_len(events: &[Arc<Event>], wanted: impl Fn(&Event) -> bool) -> usize {
    let mut bytes = 0;
    let fits = |event: &&Arc<Event>| {
        let first = bytes == 0;
        bytes += if wanted(event) { event.encoded_len() } else { 0 };
        first || bytes <= MAX_BATCH_BYTES
    };
    events.iter().take_while(fits).count()
}

/// The event at a position.
pub(crate) async fn position(outbox: &Outbox, request: &GetPositionRequest) -> Result<LogPosition, Status> {
    let GetPositionRequest { partition, position } = *request;
    if partition >= PARTITIONS {
        return Err(DOMAIN.invalid_field("INVALID_FIELD", "partition", "must be 0-15"));
    }
    let standing = outbox.standing(Position { partition, position }).await;
    match standing.map_err(|error| unavailable(&error))? {
        Standing::Event(event_id) => {
            Ok(LogPosition { store_id: outbox.store_id().to_owned(), partition, position, event_id })
        }
        Standing::Beyond { head } => {
            let message = format!("the head of partition {partition} is {head}");
            Err(DOMAIN.error(Code::OutOfRange, "BEYOND_HEAD", message))
        }
        Standing::Pruned => Err(expired(partition, position)),
    }
}

fn response(event: subscribe_response::Event) -> SubscribeResponse {
    SubscribeResponse { event: Some(event) }
}

fn diverged(partition: u32, after: u64, event_id: &str, there: &str) -> Status {
    let message = format!(
        "partition {partition} was read up to {after}, where event {event_id} stood, and where {there} stands now: events were \
         lost, and others have come in their place"
    );
    DOMAIN.error(Code::DataLoss, "LOG_DIVERGED", message)
}

fn expired(partition: u32, position: u64) -> Status {
    let message = format!("events behind position {position} of partition {partition} were pruned");
    DOMAIN.error(Code::OutOfRange, CURSOR_EXPIRED, message)
}

/// Whether an error says that the position was pruned.
pub(crate) fn is_expired(status: &Status) -> bool {
    status.code() == Code::OutOfRange
        && status.get_error_details().error_info().is_some_and(|info| info.reason == CURSOR_EXPIRED)
}

fn protocol(message: &str) -> Status {
    DOMAIN.error(Code::InvalidArgument, "PROTOCOL_BROKEN", message)
}

pub(crate) fn unavailable(error: &StoreError) -> Status {
    // Each subscriber that comes again asks anew.
    static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
    let error = with_causes(error);
    if let Some(left_out) = LIMIT.pass_once(&error) {
        tracing::warn!(error, "the log could not be read{left_out}");
    }
    DOMAIN.retry_later("STORE_UNAVAILABLE", "the event log cannot be read at the moment", Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_a_message_and_has_one_event_at_least() {
        let event = |kib: usize| {
            Arc::new(Event { trace_parent: "x".repeat(kib << 10), r#type: "wanted".into(), ..Event::default() })
        };
        let len = |kib: &[usize]| batch_len(&kib.iter().map(|kib| event(*kib)).collect::<Vec<_>>(), |_| true);
        assert_eq!(len(&[]), 0);
        assert_eq!(len(&[1; 512]), 512);
        assert_eq!(len(&[100; 512]), 10);
        assert_eq!(len(&[3000, 1]), 1, "nothing else could be done with it");
        assert_eq!(batch_len(&vec![event(100); 512], |_| false), 512, "what is not wanted is not sent");
    }
}
