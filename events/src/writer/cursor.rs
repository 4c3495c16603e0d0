//! Cursors record how far this store has folded other services' logs, and are the fence that makes effects happen once.
//!
//! A batch that covers (after, through] may take effect only if the cursor stands at `after`, checked and moved in the
//! transaction of the effects, under the row's lock. A second batch (a repeat, or one of a zombie or another
//! instance) finds the cursor elsewhere and is fenced.
//!
//! A cursor also says which event stands where it stands, so that the source can tell whether what was folded is its past.
//! Programs of 0.1 move the position alone; the event is then not known, until the source says it again.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    outbox::Position,
    store::{Database, Row, Sql, StoreError, Transaction, signed},
};

/// Under which name a group keeps its cursors of a source: see [`Group`](crate::consumer::group::Group).
pub(crate) type CursorName = Arc<str>;

/// A batch's claim on its source's log: nothing up to `after` is missing, all up to `through` is in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CursorMove {
    pub(crate) cursor: CursorName,
    pub(crate) store_id: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) after: u64,
    pub(crate) through: u64,
    /// The event at `through`; empty if the source does not say it.
    pub(crate) through_event_id: String,
}

/// A cursor: a position, the store that it belongs to, and the event there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) store_id: Arc<str>,
    pub(crate) position: u64,
    /// Empty: not known, or position 0.
    pub(crate) event_id: String,
}

/// The cursors that a transaction touches, as they are after the moves so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors {
    cursors: BTreeMap<(CursorName, u32), Cursor>,
    /// Where the cursor of the last move stood before it.
    before: Option<Cursor>,
    moved: bool,
}

impl Cursors {
    /// Reads, and locks, the cursors that `moves` touch; one select for each name.
    pub(crate) async fn lock<'a>(
        tx: &mut dyn Transaction,
        moves: impl Iterator<Item = &'a CursorMove>,
    ) -> Result<Self, StoreError> {
        let mut wanted: BTreeMap<&CursorName, Vec<u32>> = BTreeMap::new();
        for claim in moves {
            wanted.entry(&claim.cursor).or_default().push(claim.partition);
        }
        let mut cursors = BTreeMap::new();
        for (name, mut partitions) in wanted {
            partitions.sort_unstable();
            partitions.dedup();
            let locked = lock(tx, name, &partitions).await?;
            cursors.extend(locked.into_iter().map(|(partition, cursor)| ((name.clone(), partition), cursor)));
        }
        Ok(Self { cursors, before: None, moved: false })
    }

    /// Moves a cursor; `false` if it does not stand where the batch begins: the batch is fenced.
    pub(crate) fn advance(&mut self, claim: &CursorMove) -> bool {
        let begin = || Cursor { store_id: claim.store_id.clone(), ..Cursor::default() };
        let cursor = self.cursors.entry((claim.cursor.clone(), claim.partition)).or_insert_with(begin);
        // Position 0 says that nothing was read yet, so it belongs to any store.
        let same_store = cursor.store_id == claim.store_id || cursor.position == 0;
        if !same_store || cursor.position != claim.after || claim.through < claim.after {
            return false;
        }
        let event_id = claim.through_event_id.clone();
        let after = Cursor { store_id: claim.store_id.clone(), position: claim.through, event_id };
        self.before = Some(std::mem::replace(cursor, after));
        self.moved = true;
        true
    }

    /// Takes back the last move, because its batch was refused.
    pub(crate) fn take_back(&mut self, claim: &CursorMove) {
        if let Some(before) = self.before.take() {
            self.cursors.insert((claim.cursor.clone(), claim.partition), before);
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
        let rows = self.cursors.iter().map(|((name, partition), cursor)| (&**name, *partition, cursor));
        save(tx, rows).await
    }
}

/// Writes cursors, of which there is one.
pub(crate) async fn save<'a>(
    tx: &mut dyn Transaction,
    cursors: impl Iterator<Item = (&'a str, u32, &'a Cursor)>,
) -> Result<(), StoreError> {
    let rows = cursors.map(|(name, partition, cursor)| {
        [
            name.into(),
            i64::from(partition).into(),
            (*cursor.store_id).into(),
            signed(cursor.position).into(),
            cursor.event_id.as_str().into(),
            signed(cursor.position).into(),
        ]
    });
    let upsert = Sql::new("insert into cursor (source, partition, store_id, position, event_id, event_position) ")
        .values(rows)
        .push(" on conflict (source, partition) do update set store_id = excluded.store_id, ")
        .push("position = excluded.position, event_id = excluded.event_id, event_position = excluded.event_position");
    tx.execute(upsert).await.map(drop)
}

/// Reads, and locks, the cursors of some partitions, of which there is one; those that were not there are made.
pub(crate) async fn lock(
    tx: &mut dyn Transaction,
    name: &str,
    partitions: &[u32],
) -> Result<Vec<(u32, Cursor)>, StoreError> {
    let locked = lock_rows(tx, name, partitions).await?;
    if locked.len() == partitions.len() {
        return Ok(locked);
    }
    // Where there is no row there is no lock, and two instances that begin together would both be first.
    let none = |partition: &u32| [name.into(), i64::from(*partition).into(), "".into(), 0.into()];
    let insert = Sql::new("insert into cursor (source, partition, store_id, position) ")
        .values(partitions.iter().map(none))
        .push(" on conflict (source, partition) do nothing");
    tx.execute(insert).await?;
    lock_rows(tx, name, partitions).await
}

async fn lock_rows(tx: &mut dyn Transaction, name: &str, partitions: &[u32]) -> Result<Vec<(u32, Cursor)>, StoreError> {
    let select = select(name)
        .push(" and partition ")
        .in_list(partitions.iter().copied().map(i64::from))
        .push(" order by partition")
        .push(tx.for_update());
    rows(&tx.fetch(select).await?)
}

/// Notes the event at a cursor of 0.1, unless the cursor has moved on meanwhile.
pub(crate) async fn pin(
    database: &Database,
    name: &str,
    partition: u32,
    position: u64,
    event_id: &str,
) -> Result<(), StoreError> {
    let update = Sql::new("update cursor set event_id = ")
        .arg(event_id)
        .push(", event_position = ")
        .arg(signed(position))
        .push(" where source = ")
        .arg(name)
        .push(" and partition = ")
        .arg(i64::from(partition))
        .push(" and position = ")
        .arg(signed(position));
    let mut tx = database.begin().await?;
    tx.execute(update).await?;
    tx.commit().await
}

/// The committed cursors of this name, by partition.
pub(crate) async fn load(database: &Database, name: &str) -> Result<BTreeMap<u32, Cursor>, StoreError> {
    Ok(rows(&database.read(select(name)).await?)?.into_iter().collect())
}

/// Where cursors stand.
pub(crate) fn positions(cursors: &BTreeMap<u32, Cursor>) -> impl Iterator<Item = Position> {
    cursors.iter().map(|(partition, cursor)| Position { partition: *partition, position: cursor.position })
}

fn select(name: &str) -> Sql {
    Sql::new("select partition, store_id, position, event_id, event_position from cursor where source = ").arg(name)
}

fn rows(rows: &[Row]) -> Result<Vec<(u32, Cursor)>, StoreError> {
    rows.iter()
        .map(|row| {
            let partition =
                u32::try_from(row.int(0)?).map_err(|_| StoreError::Decode { column: 0, expected: "a partition" })?;
            let position = row.count(2)?;
            // Moving the position alone would leave another position's event beside it.
            let event_id = if row.count(4)? == position { row.text(3)? } else { "" };
            Ok((partition, Cursor { store_id: row.text(1)?.into(), position, event_id: event_id.to_owned() }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(after: u64, through: u64) -> CursorMove {
        let through_event_id = format!("event {through}");
        CursorMove { cursor: "order".into(), store_id: "a".into(), partition: 1, after, through, through_event_id }
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
