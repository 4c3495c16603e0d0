//! Members as a list in memory: the instances of one process share the [`Outbox`](crate::outbox::Outbox), and each join and
//! leave is assigned at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::assignment::{assign, share};
use crate::writer::CursorName;

/// The members of every group, in the order in which they joined.
#[derive(Clone, Default)]
pub(crate) struct Groups {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next_member: u64,
    groups: BTreeMap<CursorName, BTreeMap<u64, watch::Sender<BTreeSet<u32>>>>,
}

impl Groups {
    /// Joins a group; dropping the member leaves it.
    pub(super) fn join(&self, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Member {
        let id = self.with(|inner| {
            inner.next_member += 1;
            inner.groups.entry(cursor.clone()).or_default().insert(inner.next_member, sender);
            inner.assign_all(&cursor);
            inner.next_member
        });
        Member { groups: self.clone(), cursor, id }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock())
    }
}

impl Inner {
    fn assign_all(&self, cursor: &CursorName) {
        let Some(members) = self.groups.get(cursor) else { return };
        for (rank, sender) in members.values().enumerate() {
            assign(sender, share(rank, members.len()));
        }
    }
}

/// A member of a group, as long as it is held.
pub(super) struct Member {
    groups: Groups,
    cursor: CursorName,
    id: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.groups.with(|inner| {
            if let Some(members) = inner.groups.get_mut(&self.cursor) {
                members.remove(&self.id);
            }
            inner.assign_all(&self.cursor);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::PARTITIONS;

    #[test]
    fn every_partition_has_one_reader_while_members_join_and_leave() {
        let groups = Groups::default();
        let mut members = Vec::new();
        for joining in [true, true, true, false, true, false, false] {
            if joining {
                let (sender, partitions) = watch::channel(BTreeSet::new());
                members.push((groups.join("order".into(), sender), partitions));
            } else {
                members.remove(0);
            }
            let mut read: Vec<u32> = members.iter().flat_map(|(_, partitions)| partitions.borrow().clone()).collect();
            read.sort_unstable();
            assert_eq!(read, (0..PARTITIONS).collect::<Vec<_>>(), "{} members", members.len());
        }
    }
}
