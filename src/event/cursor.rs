//! How far this store has folded the logs of others: the fence that makes effects happen once.
//!
//! A batch that covers (after, through] may take effect only if the cursor stands at `after`, checked and moved in the
//! transaction of the effects, under the row's lock. Whoever comes second (a repeat, a zombie, another instance) finds
//! the cursor elsewhere and is fenced.

use std::collections::BTreeMap;

use super::{Position, outbox::signed};
use crate::store::{Database, Sql, StoreError, Transaction};

/// A batch's claim on its source's log: nothing up to `after` is missing, all up to `through` is in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CursorMove {
    pub(crate) source: &'static str,
    pub(crate) store_id: String,
    pub(crate) partition: u32,
    pub(crate) after: u64,
    pub(crate) through: u64,
}

/// A cursor: a position, and the store that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) store_id: String,
    pub(crate) position: u64,
}

/// The cursors that a transaction touches, as they are after the moves so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors {
    cursors: BTreeMap<(&'static str, u32), Cursor>,
    /// Where the cursor of the last move stood before it.
    before: Option<Cursor>,
    moved: bool,
}

impl Cursors {
    /// Reads, and locks, the cursors that `moves` touch; one select for each source.
    pub(crate) async fn lock<'a>(
        tx: &mut dyn Transaction,
        moves: impl Iterator<Item = &'a CursorMove>,
    ) -> Result<Self, StoreError> {
        let mut wanted: BTreeMap<&'static str, Vec<u32>> = BTreeMap::new();
        for claim in moves {
            wanted.entry(claim.source).or_default().push(claim.partition);
        }
        let mut cursors = BTreeMap::new();
        for (source, mut partitions) in wanted {
            partitions.sort_unstable();
            partitions.dedup();
            let mut locked = lock(tx, source, &partitions).await?;
            if locked.len() < partitions.len() {
                // Where there is no row there is no lock, and two instances that begin together would both be first.
                create(tx, source, &partitions).await?;
                locked = lock(tx, source, &partitions).await?;
            }
            cursors.extend(locked);
        }
        Ok(Self { cursors, before: None, moved: false })
    }

    /// Moves a cursor; `false` if it does not stand where the batch begins: the batch is fenced.
    pub(crate) fn advance(&mut self, claim: &CursorMove) -> bool {
        let cursor = self
            .cursors
            .entry((claim.source, claim.partition))
            .or_insert_with(|| Cursor { store_id: claim.store_id.clone(), position: 0 });
        // Position 0 says that nothing was read yet, so it belongs to any store.
        let same_store = cursor.store_id == claim.store_id || cursor.position == 0;
        if !same_store || cursor.position != claim.after || claim.through < claim.after {
            return false;
        }
        let after = Cursor { store_id: claim.store_id.clone(), position: claim.through };
        self.before = Some(std::mem::replace(cursor, after));
        self.moved = true;
        true
    }

    /// Takes back the last move, because its batch was refused.
    pub(crate) fn take_back(&mut self, claim: &CursorMove) {
        if let Some(before) = self.before.take() {
            self.cursors.insert((claim.source, claim.partition), before);
        }
    }

    /// Whether there is something to [`save`](Self::save).
    pub(crate) fn have_moved(&self) -> bool {
        self.moved
    }

    /// Writes the cursors; one statement, however many.
    pub(crate) async fn save(&self, tx: &mut dyn Transaction) -> Result<(), StoreError> {
        if !self.moved {
            return Ok(());
        }
        let rows = self.cursors.iter().map(|((source, partition), cursor)| {
            [
                (*source).into(),
                i64::from(*partition).into(),
                cursor.store_id.as_str().into(),
                signed(cursor.position).into(),
            ]
        });
        let upsert = Sql::new("insert into cursor (source, partition, store_id, position) values ").rows(rows).push(
            " on conflict (source, partition) do update set store_id = excluded.store_id, position = excluded.position",
        );
        tx.execute(upsert).await.map(drop)
    }
}

async fn lock(
    tx: &mut dyn Transaction,
    source: &'static str,
    partitions: &[u32],
) -> Result<Vec<CursorRow>, StoreError> {
    let select = select(source)
        .push(" and partition in ")
        .list(partitions.iter().copied().map(i64::from))
        .push(" order by partition")
        .push(tx.for_update());
    rows(source, &tx.fetch(select).await?)
}

/// Makes rows for the partitions that have none: nothing was read yet, of whatever store.
async fn create(tx: &mut dyn Transaction, source: &'static str, partitions: &[u32]) -> Result<(), StoreError> {
    let none = |partition: &u32| [source.into(), i64::from(*partition).into(), "".into(), 0.into()];
    let insert = Sql::new("insert into cursor (source, partition, store_id, position) values ")
        .rows(partitions.iter().map(none))
        .push(" on conflict (source, partition) do nothing");
    tx.execute(insert).await.map(drop)
}

/// The committed cursors of a source, by partition.
pub(super) async fn load(database: &Database, source: &'static str) -> Result<BTreeMap<u32, Cursor>, StoreError> {
    let rows = rows(source, &database.read(select(source)).await?)?;
    Ok(rows.into_iter().map(|((_, partition), cursor)| (partition, cursor)).collect())
}

/// Where cursors stand.
pub(super) fn positions(cursors: &BTreeMap<u32, Cursor>) -> impl Iterator<Item = Position> {
    cursors.iter().map(|(partition, cursor)| Position { partition: *partition, position: cursor.position })
}

fn select(source: &'static str) -> Sql {
    Sql::new("select partition, store_id, position from cursor where source = ").arg(source)
}

type CursorRow = ((&'static str, u32), Cursor);

fn rows(source: &'static str, rows: &[crate::store::Row]) -> Result<Vec<CursorRow>, StoreError> {
    rows.iter()
        .map(|row| {
            let partition =
                u32::try_from(row.int(0)?).map_err(|_| StoreError::Decode { column: 0, expected: "a partition" })?;
            Ok(((source, partition), Cursor { store_id: row.text(1)?.to_owned(), position: row.count(2)? }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(after: u64, through: u64) -> CursorMove {
        CursorMove { source: "order", store_id: "a".into(), partition: 1, after, through }
    }

    #[test]
    fn a_batch_takes_effect_once_and_only_without_a_gap() {
        let mut cursors = Cursors::default();
        assert!(cursors.advance(&claim(0, 3)));
        assert!(!cursors.advance(&claim(0, 3)), "repeated");
        assert!(!cursors.advance(&claim(4, 5)), "a gap");
        assert!(!cursors.advance(&claim(2, 5)), "an overlap");
        assert!(cursors.advance(&claim(3, 4)), "pipelined behind the first");
    }

    #[test]
    fn a_cursor_of_another_store_fences() {
        let mut cursors = Cursors::default();
        assert!(cursors.advance(&claim(0, 3)));
        assert!(!cursors.advance(&CursorMove { store_id: "b".into(), ..claim(3, 4) }));
    }
}
