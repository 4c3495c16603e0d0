//! The base of a partition: where it begins after pruning.

use std::collections::BTreeMap;

use crate::store::{Database, Row, Sql, StoreError};

/// Where a partition begins: all up to there was pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) position: u64,
    /// The event there.
    pub(crate) event_id: String,
}

/// The bases of the partitions that were pruned.
pub(super) async fn bases(database: &Database) -> Result<BTreeMap<u32, Base>, StoreError> {
    let rows = database.read(Sql::new("select partition, position, event_id from outbox_base")).await?;
    let base = |row: &Row| {
        let partition =
            u32::try_from(row.int(0)?).map_err(|_| StoreError::Decode { column: 0, expected: "a partition" })?;
        Ok((partition, Base { position: row.count(1)?, event_id: row.text(2)?.to_owned() }))
    };
    rows.iter().map(base).collect()
}
