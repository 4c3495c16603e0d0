//! Which services a watcher wants to see, and what it has seen of them.

use std::{collections::BTreeSet, sync::Arc};

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every service, also those that come later.
    All,
    /// These.
    Services(BTreeSet<Arc<str>>),
}

impl Interest {
    /// The services with these names; all if there are none (as `WatchRequest.services` has it).
    pub fn of<S: Into<Arc<str>>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: BTreeSet<Arc<str>> = names.into_iter().map(Into::into).collect();
        if names.is_empty() { Self::All } else { Self::Services(names) }
    }
}

/// A point in the history of an epoch, up to which a watcher has seen everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The epoch of `revision`.
    pub epoch: String,
    /// The last revision seen.
    pub revision: u64,
}
