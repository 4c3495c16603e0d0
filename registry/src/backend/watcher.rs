//! One watch: it holds the revision that its client has seen, and compares when the transport has room for an answer.
//!
//! There is no queue between the table and the client. However slow the client is, what it gets next is the difference
//! between what it has and what is, and the memory it costs is that of this struct.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{BackendError, Event, Update, Updates, shared::Shared};
use crate::table::{Delta, Interest};

/// A watch without changes for this long sends a progress mark. The contract promises 10 s.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Watcher {
    shared: Arc<Shared>,
    interest: Interest,
    id: u64,
    changed: Arc<Notify>,
    /// The client has everything up to here. `None`: it has nothing.
    seen: Option<u64>,
    /// When to say that nothing has happened. `None`: the client waits for its first response.
    progress_at: Option<Instant>,
}

impl Watcher {
    /// Registers interest first, so that no change falls between the first look and the first wait.
    pub(super) fn new(shared: Arc<Shared>, interest: Interest, seen: Option<u64>) -> Result<Self, BackendError> {
        let (id, changed) = shared.wakers().enter(&interest)?;
        Ok(Self { shared, interest, id, changed, seen, progress_at: None })
    }

    pub(super) fn into_updates(self) -> Updates {
        stream::unfold(self, |mut watcher| async { Some((watcher.next().await, watcher)) }).boxed()
    }

    async fn next(&mut self) -> Update {
        loop {
            let update = self.look();
            let Some(progress_at) = self.progress_at else { return self.answer(first(update)) };
            let news = !matches!(update.event, Event::Progress);
            if news || progress_at <= Instant::now() {
                return self.answer(update);
            }
            // Both arms only wait, and a look follows either.
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(progress_at) => {}
            }
        }
    }

    /// What the client does not have yet.
    fn look(&mut self) -> Update {
        let table = self.shared.table();
        let event = match self.seen.and_then(|seen| table.changes(&self.interest, seen)) {
            Some(delta) if delta.is_empty() => Event::Progress,
            Some(delta) => Event::Change(delta),
            None => Event::Snapshot { services: table.snapshot(&self.interest), provisional: table.provisional() },
        };
        let revision = table.revision();
        self.seen = Some(revision);
        Update { revision, event }
    }

    fn answer(&mut self, update: Update) -> Update {
        self.progress_at = Some(Instant::now() + PROGRESS_INTERVAL);
        update
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.wakers().leave(self.id, &self.interest);
    }
}

/// A client that resumes gets what it has missed at once, even if that is nothing.
fn first(update: Update) -> Update {
    match update.event {
        Event::Progress => Update { event: Event::Change(Delta::default()), ..update },
        Event::Snapshot { .. } | Event::Change(_) => update,
    }
}
