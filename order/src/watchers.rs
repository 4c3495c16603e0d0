//! The watchers of orders: a change wakes only the watchers of its order, however many orders there are.
//!
//! The log wakes them. It shows every change, including those that another process on the same database has made.
//! They learn only that the order changed and read it anew, so nothing can queue up.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// All watchers; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<Uuid, watch::Sender<()>>>>);

impl Watchers {
    /// Begins to watch an order. To be called before the order is read, so that no change falls between.
    pub(crate) fn watch(&self, order_id: Uuid) -> Watch {
        let changes = self.0.lock().entry(order_id).or_default().subscribe();
        Watch { order_id, watchers: self.clone(), changes: Some(changes) }
    }

    /// Wakes the watchers of the order that an event of the log is about.
    pub(crate) fn changed(&self, order_id: &str) {
        let watchers = self.0.lock();
        if watchers.is_empty() {
            return;
        }
        if let Some(sender) = Uuid::try_parse(order_id).ok().and_then(|id| watchers.get(&id)) {
            sender.send_replace(());
        }
    }
}

/// One watcher; dropped, it is forgotten.
pub(crate) struct Watch {
    order_id: Uuid,
    watchers: Watchers,
    /// Empty only while it is dropped.
    changes: Option<watch::Receiver<()>>,
}

impl Watch {
    /// Waits until the order has changed since the last call. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let changes = self.changes.as_mut().expect("kept until it is dropped");
        changes.changed().await.expect("the sender stays while it has receivers");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.watchers.0.lock();
        // Under the lock, so that the last of several that go at once sees itself as the last.
        self.changes = None;
        if watchers.get(&self.order_id).is_some_and(|sender| sender.receiver_count() == 0) {
            watchers.remove(&self.order_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_change_wakes_the_watchers_of_its_order_and_no_others() {
        let (this, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let watchers = Watchers::default();
        let mut first = watchers.watch(this);
        let mut second = watchers.watch(this);
        let mut bystander = watchers.watch(other);

        watchers.changed(&this.to_string());

        assert!(first.changed().now_or_never().is_some());
        assert!(second.changed().now_or_never().is_some());
        assert!(second.changed().now_or_never().is_none(), "told once");
        assert!(bystander.changed().now_or_never().is_none());
    }

    #[test]
    fn orders_without_watchers_are_forgotten() {
        let watchers = Watchers::default();
        let (first, second) = (watchers.watch(Uuid::nil()), watchers.watch(Uuid::nil()));
        drop(first);
        assert_eq!(watchers.0.lock().len(), 1);
        drop(second);
        assert_eq!(watchers.0.lock().len(), 0);
    }
}
