//! Places in a log: partitions, positions, and the token that carries one to a reader.

use std::hash::Hasher as _;

use meshwork::{
    contract::meshwork::event::v1::Event,
    rpc::{self, InvalidToken},
};
use uuid::Uuid;

/// The number of partitions of every log. It is fixed: the partition of a key must never change.
pub const PARTITIONS: u32 = 16;

/// The partition of all events with this partition key: FNV-1a of its 16 bytes, modulo [`PARTITIONS`].
pub fn partition_of(key: Uuid) -> u32 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(key.as_bytes());
    u32::try_from(hasher.finish() % u64::from(PARTITIONS)).expect("less than PARTITIONS")
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The partition, below [`PARTITIONS`].
    pub partition: u32,
    /// The position in it, gap-free from 1; 0 is before the first.
    pub position: u64,
}

/// A position in one past of a log: where, and which event stands there. A store that was set back to a backup gives the
/// position to another event later; no event has its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPoint {
    /// The position.
    pub at: Position,
    /// The event there. `None`: before the first.
    pub event_id: Option<Uuid>,
}

impl LogPoint {
    /// Before the first event of a partition.
    pub(crate) fn begin(partition: u32) -> Self {
        Self { at: Position { partition, position: 0 }, event_id: None }
    }

    /// The position of an event of this store's log.
    pub(crate) fn of(event: &Event) -> Self {
        let at = Position { partition: event.partition, position: event.position };
        Self { at, event_id: Uuid::try_parse(&event.event_id).ok() }
    }
}

/// A place in the log of one service's store: what a `position_token` holds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PositionToken {
    /// The service that owns the log.
    #[prost(string, tag = "1")]
    pub source: String,
    /// The store that holds it.
    #[prost(string, tag = "2")]
    pub store_id: String,
    /// The partition.
    #[prost(uint32, tag = "3")]
    pub partition: u32,
    /// The position in it.
    #[prost(uint64, tag = "4")]
    pub position: u64,
    /// The event that stood there when the token was given. Empty in tokens of 0.1.
    #[prost(string, tag = "5")]
    pub event_id: String,
}

impl PositionToken {
    /// The token as text that clients hand on unread.
    pub fn to_text(&self) -> String {
        rpc::encode_token(self)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`InvalidToken`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let token: Self = rpc::decode_token(text)?;
        if token.source.is_empty() || token.partition >= PARTITIONS { Err(InvalidToken) } else { Ok(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_partition_over_releases() {
        let keys = [0_u128, 1, 0x0192_3f4a_0000_7000_8000_0000_0000_0001, u128::MAX];
        assert_eq!(keys.map(|key| partition_of(Uuid::from_u128(key))), [5, 2, 12, 5]);
    }

    #[test]
    fn a_token_survives_its_way_through_a_client() {
        let token = PositionToken {
            source: "order".into(),
            store_id: "s".into(),
            partition: 15,
            position: 7,
            event_id: "e".into(),
        };
        assert_eq!(PositionToken::parse(&token.to_text()), Ok(token));
        for bad in ["", "x", "AAAA", "🦀"] {
            assert_eq!(PositionToken::parse(bad), Err(InvalidToken), "{bad}");
        }
    }
}
