//! An event as a decider returns it.

use prost::{Message, Name};
use uuid::Uuid;

/// An event as decided, before it has a position.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// All events with one partition key are in one order, because they share a partition.
    pub partition_key: [u8; 16],
    /// The kind of thing it happened to.
    pub aggregate_type: &'static str,
    /// The id of that thing.
    pub aggregate_id: String,
    /// The aggregate's version after it, from 1.
    pub aggregate_version: u64,
    /// The payload's full message name.
    pub event_type: String,
    /// The payload, encoded.
    pub payload: Vec<u8>,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub create_time_ms: i64,
    /// W3C trace context of what caused it. Empty: none.
    pub trace_parent: String,
}

impl NewEvent {
    /// An event with `payload`, keyed by `partition_key`, that brought an aggregate to `version`.
    pub fn new<M: Message + Name>(
        partition_key: Uuid,
        aggregate: (&'static str, Uuid),
        version: u64,
        create_time_ms: i64,
        payload: &M,
    ) -> Self {
        Self {
            partition_key: partition_key.into_bytes(),
            aggregate_type: aggregate.0,
            aggregate_id: aggregate.1.to_string(),
            aggregate_version: version,
            event_type: M::full_name(),
            payload: payload.encode_to_vec(),
            create_time_ms,
            trace_parent: String::new(),
        }
    }
}
