//! Holds the state of an open log, which its handles and its own tasks share.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use meshwork::{contract::meshwork::event::v1::Event, health::Condition};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{
    base::bases,
    position::LogPoint,
    row,
    tail::{Published, Tail},
};
use crate::{
    consumer::{ConsumerGroups, Progress},
    store::{Database, Sql, StoreError, signed},
};

/// Events of one read of what others have committed: some 600 KiB.
const MAX_CATCH_UP_EVENTS: usize = 1024;

/// An open log.
pub(super) struct Log {
    pub(super) database: Database,
    pub(super) store_id: String,
    pub(super) place: String,
    pub(super) tail: Mutex<Tail>,
    pub(super) heads: watch::Sender<()>,
    /// Set once what was published is not the past of the log in the database. Stays set: what came since is a mixture.
    pub(super) went_back: OnceLock<WentBack>,
    /// Held while publishing, so that observers see each partition in order.
    pub(super) observers: Mutex<Vec<Observer>>,
    /// Why what others have committed cannot be read at the moment.
    pub(super) unread: Mutex<Option<String>>,
    /// Events were committed that cannot be published before others are read.
    pub(super) behind: Arc<Notify>,
    pub(super) catching_up: JoinHandle<()>,
    pub(super) consumer_groups: ConsumerGroups,
    /// The subscriptions that read into this store, by source and group.
    pub(super) progress: Mutex<BTreeMap<(String, String), Progress>>,
    pub(super) condition: Condition,
    pub(super) watching: JoinHandle<()>,
}

/// Where the database turned out to hold another log than the one that was published.
pub(super) struct WentBack {
    partition: u32,
    found: u64,
    published: u64,
}

pub(super) type Observer = Box<dyn Fn(&Event) + Send + Sync>;

impl Log {
    /// Whether the database answers, can be written, and still holds this store, with all that was published of it; and whether
    /// what others have written there can be read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.database.check().await?;
        let published = self.tail().heads().to_vec();
        self.verify(&published).await?;
        // Without it no subscription can be opened.
        bases(&self.database).await?;
        match &*self.unread() {
            None => Ok(()),
            Some(problem) => Err(StoreError::Unavailable(format!("the log cannot be read: {problem}").into())),
        }
    }

    /// Whether the log in the database still has the events that were published last, and is of this store.
    pub(super) async fn verify(&self, published: &[LogPoint]) -> Result<(), StoreError> {
        let point = |LogPoint { at, .. }: &LogPoint| [i64::from(at.partition).into(), signed(at.position).into()];
        let select = Sql::new("with published (partition, position) as (")
            .values(published.iter().map(point))
            .push(") select published.partition, coalesce(next, 1), (select store_id from store), coalesce(event_id, '') ")
            .push("from published left join outbox_head on outbox_head.partition = published.partition ")
            .push("left join outbox on outbox.partition = published.partition and outbox.position = published.position");
        for row in self.database.read(select).await? {
            let published = usize::try_from(row.int(0)?).ok().and_then(|partition| published.get(partition));
            let published = published.ok_or(StoreError::Decode { column: 0, expected: "a partition" })?;
            self.compare(row.text(2)?, published, row.count(1)?.saturating_sub(1), row.text(3)?)?;
        }
        Ok(())
    }

    /// Compares the end of what was published with the database: its store, its head, and the event at the same position, which
    /// is empty if it is unknown.
    pub(super) fn compare(
        &self,
        store_id: &str,
        published: &LogPoint,
        found: u64,
        there: &str,
    ) -> Result<(), StoreError> {
        if store_id != self.store_id {
            return Err(StoreError::Replaced { path: "the database".to_owned() });
        }
        let LogPoint { at, event_id } = *published;
        let is_other = !there.is_empty() && event_id.is_some() && Uuid::try_parse(there).ok() != event_id;
        if found < at.position || is_other {
            let first = WentBack { partition: at.partition, found, published: at.position };
            if self.went_back.set(first).is_ok() {
                // Sessions end.
                self.heads.send_replace(());
            }
        }
        self.check_not_set_back()
    }

    pub(super) fn check_not_set_back(&self) -> Result<(), StoreError> {
        match self.went_back.get() {
            None => Ok(()),
            Some(&WentBack { partition, found, published }) => {
                Err(StoreError::WentBack { partition, found, published })
            }
        }
    }

    pub(super) fn publish(&self, events: Vec<Event>) {
        let observers = self.observers();
        let mut published = false;
        for event in events.into_iter().map(Arc::new) {
            let taken = self.tail().publish(event.clone());
            match taken {
                Published::Now => observers.iter().for_each(|observer| show(observer, &event)),
                Published::Before => {}
                Published::Gap => self.behind.notify_one(),
            }
            published |= taken == Published::Now;
        }
        if published {
            self.heads.send_replace(());
        }
    }

    /// Publishes what is in the database and was not published here.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            let heads = self.tail().heads().to_vec();
            let rows = self.database.read(row::select_after_all(&heads, MAX_CATCH_UP_EVENTS)).await?;
            // After the read, so that what goes on from the heads was there behind them.
            self.verify(&heads).await?;
            let events = rows.iter().map(row::event).collect::<Result<Vec<_>, _>>()?;
            let complete = events.len() < MAX_CATCH_UP_EVENTS;
            self.publish(events);
            if complete {
                return Ok(());
            }
        }
    }

    pub(super) fn unread(&self) -> MutexGuard<'_, Option<String>> {
        // It is replaced as a whole.
        self.unread.lock()
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        // A tail that another thread left in the middle of a push is still a contiguous run.
        self.tail.lock()
    }

    pub(super) fn observers(&self) -> MutexGuard<'_, Vec<Observer>> {
        // An observer that has panicked has taken nothing from the others.
        self.observers.lock()
    }
}

/// Published events stay published, and other observers see them, even if one observer panics.
fn show(observer: &Observer, event: &Event) {
    if catch_unwind(AssertUnwindSafe(|| observer(event))).is_err() {
        tracing::error!(event_id = event.event_id, "an observer of events panicked");
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.catching_up.abort();
        self.watching.abort();
    }
}
