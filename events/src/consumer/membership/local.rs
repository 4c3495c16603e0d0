//! Members as a list in memory: instances of one process share the [`Outbox`](crate::outbox::Outbox), and see each other join
//! and leave at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::share::{hand_out, share};
use crate::writer::CursorName;

/// The members of every group, in the order in which they joined.
#[derive(Clone, Default)]
pub(crate) struct Memberships {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next_member: u64,
    groups: BTreeMap<CursorName, BTreeMap<u64, watch::Sender<BTreeSet<u32>>>>,
}

impl Memberships {
    /// Joins the readers of a group; dropping the seat leaves.
    pub(super) fn join(&self, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Seat {
        let member = self.with(|inner| {
            inner.next_member += 1;
            inner.groups.entry(cursor.clone()).or_default().insert(inner.next_member, sender);
            inner.share_out(&cursor);
            inner.next_member
        });
        Seat { memberships: self.clone(), cursor, member }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock())
    }
}

impl Inner {
    fn share_out(&self, cursor: &CursorName) {
        let Some(members) = self.groups.get(cursor) else { return };
        for (rank, sender) in members.values().enumerate() {
            hand_out(sender, share(rank, members.len()));
        }
    }
}

/// One reader's place among the readers of its group.
pub(super) struct Seat {
    memberships: Memberships,
    cursor: CursorName,
    member: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.memberships.with(|inner| {
            if let Some(members) = inner.groups.get_mut(&self.cursor) {
                members.remove(&self.member);
            }
            inner.share_out(&self.cursor);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::PARTITIONS;

    #[test]
    fn every_partition_has_one_reader_while_members_join_and_leave() {
        let memberships = Memberships::default();
        let mut members = Vec::new();
        for joining in [true, true, true, false, true, false, false] {
            if joining {
                let (sender, partitions) = watch::channel(BTreeSet::new());
                members.push((memberships.join("order".into(), sender), partitions));
            } else {
                members.remove(0);
            }
            let mut read: Vec<u32> = members.iter().flat_map(|(_, partitions)| partitions.borrow().clone()).collect();
            read.sort_unstable();
            assert_eq!(read, (0..PARTITIONS).collect::<Vec<_>>(), "{} members", members.len());
        }
    }
}
