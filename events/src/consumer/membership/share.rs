//! Which partitions are whose.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::outbox::PARTITIONS;

/// The partitions of the member of this rank among so many.
pub(super) fn share(rank: usize, members: usize) -> BTreeSet<u32> {
    (0..PARTITIONS).filter(|partition| *partition as usize % members == rank).collect()
}

/// Hands out a share, if it is another than before.
pub(super) fn hand_out(sender: &watch::Sender<BTreeSet<u32>>, share: BTreeSet<u32>) {
    sender.send_if_modified(|partitions| {
        let changed = *partitions != share;
        *partitions = share;
        changed
    });
}
