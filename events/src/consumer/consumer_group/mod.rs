//! Which member of a consumer group reads which partitions.
//!
//! An assignment only saves work: the cursor is the fence, so two members that both believe to own a partition for a moment
//! do no harm. The members of a group divide its partitions round-robin, in the order of their ids, which is the order in
//! which they joined. Where only this process has the database, members are a [list in memory](local); where several
//! processes share it, they are [rows in it](shared).

mod assignment;
mod local;
mod shared;

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::{store::Database, writer::CursorName};

/// The members of every group.
pub(crate) enum ConsumerGroups {
    Local(local::Groups),
    Shared(Database),
}

impl ConsumerGroups {
    /// The groups that read into `database`.
    pub(crate) fn new(database: Database) -> Self {
        match database.notifier() {
            None => Self::Local(local::Groups::default()),
            Some(_) => Self::Shared(database),
        }
    }

    /// Joins the group that shares the cursors of this name; its assignments go to `sender`.
    pub(crate) fn join(&self, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Member {
        let partitions = sender.subscribe();
        let kept = match self {
            Self::Local(groups) => Kept::Local(groups.join(cursor, sender)),
            Self::Shared(database) => Kept::Shared(shared::Member::join(database.clone(), cursor, sender)),
        };
        Member { partitions, kept }
    }
}

/// A member of a group. Dropping it looks to the others like the death of its process.
pub(crate) struct Member {
    /// The assignment: the partitions to read.
    pub(crate) partitions: watch::Receiver<BTreeSet<u32>>,
    kept: Kept,
}

/// Where the group keeps the member.
enum Kept {
    Local(local::Member),
    Shared(shared::Member),
}

impl Member {
    /// Leaves the group: the others take its partitions over at once.
    pub(crate) async fn leave(self) {
        match self.kept {
            Kept::Local(member) => drop(member),
            Kept::Shared(member) => member.leave().await,
        }
    }
}
