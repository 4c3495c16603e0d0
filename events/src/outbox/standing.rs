//! Looks up what stands at a position of the log, and where its partitions end.

use std::collections::BTreeMap;

use super::{
    Outbox,
    base::{Base, bases},
    position::Position,
    row,
};
use crate::store::{Sql, StoreError};

/// The event at a position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This event; empty before the first.
    Event(String),
    /// None yet.
    Beyond {
        /// The last position that has one.
        head: u64,
    },
    /// One that is no longer there.
    Pruned,
}

impl Outbox {
    /// The last position of a partition in the database, which other processes may have moved.
    pub(crate) async fn committed_head(&self, partition: u32) -> Result<u64, StoreError> {
        let select = Sql::new("select next from outbox_head where partition = ").arg(i64::from(partition));
        let rows = self.inner.database.read(select).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.count(0)?.saturating_sub(1)))
    }

    /// The event at a position.
    pub(crate) async fn standing(&self, at: Position) -> Result<Standing, StoreError> {
        self.check_not_set_back()?;
        if at.position == 0 {
            return Ok(Standing::Event(String::new()));
        }
        if let Some(event) = self.inner.tail().at(at) {
            return Ok(Standing::Event(event.event_id.clone()));
        }
        let base = self.bases().await?.remove(&at.partition).unwrap_or_default();
        if at.position <= base.position {
            return Ok(if at.position == base.position { Standing::Event(base.event_id) } else { Standing::Pruned });
        }
        // In the database, since another process may have written further than this one has read.
        let head = self.committed_head(at.partition).await?;
        if at.position > head {
            return Ok(Standing::Beyond { head });
        }
        let before = Position { position: at.position - 1, ..at };
        let rows = self.inner.database.read(row::select(Sql::new(""), before, 1)).await?;
        let event = rows.first().map(row::event).transpose()?.filter(|event| event.position == at.position);
        Ok(event.map_or(Standing::Pruned, |event| Standing::Event(event.event_id)))
    }

    /// Where partitions begin, of which something was pruned.
    pub(crate) async fn bases(&self) -> Result<BTreeMap<u32, Base>, StoreError> {
        self.check_not_set_back()?;
        bases(&self.inner.database).await
    }
}
