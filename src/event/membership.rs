//! Which instance of a consumer reads which partitions.
//!
//! Sharing out partitions only saves work: the cursor is the fence, so two instances that both believe to own a
//! partition for a moment do no harm. Instances of one process share the [`Outbox`](super::Outbox), so this is a list in
//! memory: joining and leaving are seen at once. The members of a source divide its partitions round-robin, in the order
//! in which they joined.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::PARTITIONS;

/// The members of every source, in the order in which they joined.
#[derive(Clone, Default)]
pub(super) struct Memberships {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next_member: u64,
    sources: BTreeMap<&'static str, BTreeMap<u64, watch::Sender<BTreeSet<u32>>>>,
}

impl Memberships {
    /// Joins the readers of a source; dropping the membership leaves.
    pub(super) fn join(&self, source: &'static str) -> Membership {
        let (sender, partitions) = watch::channel(BTreeSet::new());
        let member = self.with(|inner| {
            inner.next_member += 1;
            inner.sources.entry(source).or_default().insert(inner.next_member, sender);
            inner.share_out(source);
            inner.next_member
        });
        Membership { memberships: self.clone(), source, member, partitions }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn share_out(&self, source: &'static str) {
        let Some(members) = self.sources.get(source) else { return };
        for (rank, sender) in members.values().enumerate() {
            let share: BTreeSet<u32> = (0..PARTITIONS).filter(|p| *p as usize % members.len() == rank).collect();
            sender.send_if_modified(|partitions| {
                let changed = *partitions != share;
                *partitions = share;
                changed
            });
        }
    }
}

/// One reader's place among the readers of a source.
pub(super) struct Membership {
    memberships: Memberships,
    source: &'static str,
    member: u64,
    /// The partitions to read.
    pub(super) partitions: watch::Receiver<BTreeSet<u32>>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.memberships.with(|inner| {
            if let Some(members) = inner.sources.get_mut(self.source) {
                members.remove(&self.member);
            }
            inner.share_out(self.source);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_reader_while_members_join_and_leave() {
        let memberships = Memberships::default();
        let mut members: Vec<Membership> = Vec::new();
        for joining in [true, true, true, false, true, false, false] {
            if joining {
                members.push(memberships.join("order"));
            } else {
                members.remove(0);
            }
            let mut read: Vec<u32> = members.iter().flat_map(|m| m.partitions.borrow().clone()).collect();
            read.sort_unstable();
            assert_eq!(read, (0..PARTITIONS).collect::<Vec<_>>(), "{} members", members.len());
        }
    }
}
