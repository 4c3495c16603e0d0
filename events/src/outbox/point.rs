//! Reads the head of a row's partition together with the row: a reader that has seen all events up to there has seen the row
//! as it is.

use uuid::Uuid;

use super::{LogPoint, Position};
use crate::store::{Row, StoreError};

/// The columns to select from `outbox_head`, for [`point`].
pub const HEAD_COLUMNS: &str = "outbox_head.partition, next - 1, \
     coalesce((select event_id from outbox where outbox.partition = outbox_head.partition and position = next - 1), '')";

/// Reads [`HEAD_COLUMNS`], of which `column` is the first.
///
/// # Errors
/// [`StoreError::Decode`] if the row has other columns.
pub fn point(row: &Row, column: usize) -> Result<LogPoint, StoreError> {
    let partition =
        u32::try_from(row.int(column)?).map_err(|_| StoreError::Decode { column, expected: "a partition" })?;
    let at = Position { partition, position: row.count(column + 1)? };
    Ok(LogPoint { at, event_id: Uuid::try_parse(row.text(column + 2)?).ok() })
}
