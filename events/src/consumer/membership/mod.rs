//! Which instance of a consumer reads which partitions.
//!
//! Sharing out partitions only saves work: the cursor is the fence, so two instances that both believe to own a
//! partition for a moment do no harm. The members of a source divide its partitions round-robin, in the order of their ids,
//! which is that in which they joined. Where the database is this process's alone, members are a [list in memory](local);
//! where it is shared, they are [rows in it](shared).

mod local;
mod roster;
mod share;
mod shared;

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::{store::Database, writer::CursorName};

/// The members of every group.
pub(crate) enum Memberships {
    Local(local::Memberships),
    Shared(Database),
}

impl Memberships {
    /// Those who read into `database`.
    pub(crate) fn new(database: Database) -> Self {
        match database.peers() {
            None => Self::Local(local::Memberships::default()),
            Some(_) => Self::Shared(database),
        }
    }

    /// Joins the readers who share the cursors of this name; what is to be read goes to `sender`.
    pub(crate) fn join(&self, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Membership {
        let partitions = sender.subscribe();
        let seat = match self {
            Self::Local(memberships) => Seat::Local(memberships.join(cursor, sender)),
            Self::Shared(database) => Seat::Shared(shared::Seat::take(database.clone(), cursor, sender)),
        };
        Membership { partitions, seat }
    }
}

/// One reader's place among the readers of its group. Dropped, it is as if its process had died.
pub(crate) struct Membership {
    /// The partitions to read.
    pub(crate) partitions: watch::Receiver<BTreeSet<u32>>,
    seat: Seat,
}

enum Seat {
    Local(local::Seat),
    Shared(shared::Seat),
}

impl Membership {
    /// Leaves its partitions to the others at once.
    pub(crate) async fn leave(self) {
        match self.seat {
            Seat::Local(seat) => drop(seat),
            Seat::Shared(seat) => seat.leave().await,
        }
    }
}
