//! Events as rows of the outbox.

use meshwork::contract::meshwork::event::v1::Event;
use prost_types::{Any, Timestamp};

use super::{LogPoint, NewEvent, Position};
use crate::store::{Row, Sql, StoreError, Value, signed};

/// The version that all events have until a type's meaning changes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// The columns of [`values`] and [`event`], in their order.
pub(crate) const COLUMNS: &str = "partition, position, event_id, aggregate_type, aggregate_id, aggregate_version, type, \
                       schema_version, trace_parent, create_time_ms, payload";

/// Appends a select of up to `limit` events of one partition, in order.
pub(crate) fn select(sql: Sql, after: Position, limit: usize) -> Sql {
    sql.push("select ")
        .push(COLUMNS)
        .push(" from outbox where partition = ")
        .arg(i64::from(after.partition))
        .push(" and position > ")
        .arg(signed(after.position))
        .push(" order by position limit ")
        .arg(signed(limit as u64))
}

/// Up to `limit` events of several partitions, each in order, behind their `heads`.
pub(crate) fn select_after_all(heads: &[LogPoint], limit: usize) -> Sql {
    let mut sql = Sql::new("select * from (");
    for (index, head) in heads.iter().enumerate() {
        sql = sql.push(if index == 0 { "select * from (" } else { " union all select * from (" });
        sql = select(sql, head.at, limit).push(") as log");
    }
    sql.push(") as logs order by partition, position limit ").arg(signed(limit as u64))
}

/// An event as a row.
pub(crate) fn values(event: &Event) -> [Value; 11] {
    let payload = event.payload.as_ref().map(|any| any.value.clone());
    [
        i64::from(event.partition).into(),
        signed(event.position).into(),
        event.event_id.as_str().into(),
        event.aggregate_type.as_str().into(),
        event.aggregate_id.as_str().into(),
        signed(event.aggregate_version).into(),
        event.r#type.as_str().into(),
        i64::from(event.schema_version).into(),
        event.trace_parent.as_str().into(),
        event.create_time.as_ref().map_or(0, millis).into(),
        payload.unwrap_or_default().into(),
    ]
}

/// An event that has got its position.
pub(crate) fn positioned(event: NewEvent, at: Position) -> Event {
    Event {
        event_id: meshwork::id::new_id().to_string(),
        partition: at.partition,
        position: at.position,
        aggregate_type: event.aggregate_type.to_owned(),
        aggregate_id: event.aggregate_id,
        aggregate_version: event.aggregate_version,
        payload: Some(payload(&event.event_type, event.payload)),
        r#type: event.event_type,
        schema_version: SCHEMA_VERSION,
        trace_parent: event.trace_parent,
        create_time: Some(timestamp(event.create_time_ms)),
    }
}

/// Reads [`COLUMNS`].
pub(crate) fn event(row: &Row) -> Result<Event, StoreError> {
    let small = |column| {
        row.count(column).and_then(|value| {
            u32::try_from(value).map_err(|_| StoreError::Decode { column, expected: "a small count" })
        })
    };
    Ok(Event {
        partition: small(0)?,
        position: row.count(1)?,
        event_id: row.text(2)?.to_owned(),
        aggregate_type: row.text(3)?.to_owned(),
        aggregate_id: row.text(4)?.to_owned(),
        aggregate_version: row.count(5)?,
        r#type: row.text(6)?.to_owned(),
        schema_version: small(7)?,
        trace_parent: row.text(8)?.to_owned(),
        create_time: Some(timestamp(row.int(9)?)),
        payload: Some(payload(row.text(6)?, row.bytes(10)?.to_vec())),
    })
}

fn payload(event_type: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{event_type}"), value }
}

fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).expect("less than a second");
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

fn millis(time: &Timestamp) -> i64 {
    time.seconds * 1000 + i64::from(time.nanos / 1_000_000)
}
