//! Which watchers to wake for which service: a change wakes only its own watchers.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::BackendError;
use crate::{
    limits::MAX_WATCHES,
    table::{Interest, Touched},
};

/// The open watches, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    next_id: u64,
    watches: HashMap<u64, Arc<Notify>>,
    of_all: HashMap<u64, Arc<Notify>>,
    of_service: HashMap<Arc<str>, HashMap<u64, Arc<Notify>>>,
}

impl Wakers {
    /// Enters a watch; it is woken for every change from now on, and must [`leave`](Self::leave).
    pub(super) fn enter(&self, interest: &Interest) -> Result<(u64, Arc<Notify>), BackendError> {
        let mut lists = self.lists.lock();
        if lists.watches.len() >= MAX_WATCHES {
            return Err(BackendError::TooManyWatches);
        }
        let (id, notify) = (lists.next_id, Arc::new(Notify::new()));
        lists.next_id += 1;
        lists.watches.insert(id, notify.clone());
        match interest {
            Interest::All => _ = lists.of_all.insert(id, notify.clone()),
            Interest::Services(names) => {
                for name in names {
                    lists.of_service.entry(name.clone()).or_default().insert(id, notify.clone());
                }
            }
        }
        Ok((id, notify))
    }

    /// Takes a watch out again.
    pub(super) fn leave(&self, id: u64, interest: &Interest) {
        let mut lists = self.lists.lock();
        lists.watches.remove(&id);
        match interest {
            Interest::All => _ = lists.of_all.remove(&id),
            Interest::Services(names) => {
                for name in names {
                    let Some(list) = lists.of_service.get_mut(name) else { continue };
                    list.remove(&id);
                    if list.is_empty() {
                        lists.of_service.remove(name);
                    }
                }
            }
        }
    }

    /// Wakes the watches that a change concerns. A watch that is not waiting now finds it when it next does.
    pub(super) fn wake(&self, touched: &Touched) {
        match touched {
            Touched::Services(names) if names.is_empty() => {}
            Touched::Services(names) => {
                let lists = self.lists.lock();
                let concerned = names.iter().filter_map(|name| lists.of_service.get(name)).chain([&lists.of_all]);
                concerned.flat_map(HashMap::values).for_each(|notify| notify.notify_one());
            }
            Touched::All => self.lists.lock().watches.values().for_each(|notify| notify.notify_one()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_change_wakes_its_own_watchers_only() {
        let wakers = Wakers::default();
        let enter = |interest| wakers.enter(&interest).expect("there is room").1;
        let (all, order) = (enter(Interest::All), enter(Interest::of(["order"])));
        let (both, customer) = (enter(Interest::of(["order", "customer"])), enter(Interest::of(["customer"])));

        wakers.wake(&Touched::Services(BTreeSet::from(["order".into()])));

        let woken = [&all, &order, &both, &customer].map(|notify| notify.notified().now_or_never().is_some());
        assert_eq!(woken, [true, true, true, false]);
    }

    #[test]
    fn a_watch_that_leaves_is_forgotten_and_makes_room() {
        let wakers = Wakers::default();
        let interest = Interest::of(["order"]);
        let ids: Vec<_> = (0..MAX_WATCHES).map(|_| wakers.enter(&interest).expect("there is room").0).collect();
        assert_eq!(wakers.enter(&interest).expect_err("it is full"), BackendError::TooManyWatches);

        ids.iter().for_each(|id| wakers.leave(*id, &interest));

        assert!(wakers.lists.lock().of_service.is_empty());
        assert!(wakers.enter(&interest).is_ok());
    }
}
