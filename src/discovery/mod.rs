//! Who is there: the instances of every service, and this one among them.
//!
//! ```text
//!   registry ── Watch, one stream for all services ──> watch (one task) ── fold ──> an EndpointSet per service ──> channels
//!                                                         └── cache: the last sets on disk, for a cold start
//! ```
//!
//! A set is only ever replaced by what the registry says: while it is away the last set stays, and nothing is removed on
//! the word of a registry that has just started and does not know yet who is coming back.

pub(crate) mod announce;
mod cache;
mod endpoint;
mod fold;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, watch as latest};

pub use endpoint::{DEFAULT_WEIGHT, EndpointSet, Endpoints};

pub(crate) use cache::Cache;
pub(crate) use watch::run;

/// What channels ask, and the watching task answers. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovery(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The latest set of every service that somebody asked for.
    sets: Mutex<BTreeMap<Arc<str>, latest::Sender<EndpointSet>>>,
    /// A service was asked for that was not watched.
    asked: Notify,
    /// Why the registry cannot be reached, while it cannot.
    trouble: Mutex<Option<String>>,
}

impl Discovery {
    /// The endpoints of a service, now and as they change. From here on the service is watched, for as long as somebody
    /// holds a receiver.
    pub(crate) fn endpoints(&self, service: &str) -> latest::Receiver<EndpointSet> {
        let mut sets = self.sets();
        if let Some(set) = sets.get(service) {
            return set.subscribe();
        }
        let (set, endpoints) = latest::channel(EndpointSet::unknown(service));
        sets.insert(service.into(), set);
        drop(sets);
        self.0.asked.notify_one();
        endpoints
    }

    /// What there is to tell somebody who finds no endpoint.
    pub(crate) fn explain(&self, service: &str) -> Option<String> {
        let trouble = self.trouble().clone().map(|trouble| format!("the registry does not answer: {trouble}"));
        trouble.or_else(|| {
            let sets = self.sets();
            let set = sets.get(service)?.borrow();
            match (set.epoch.is_empty(), set.known) {
                (true, _) => Some("the registry has not answered yet".to_owned()),
                (false, false) => Some("the registry knows no such service".to_owned()),
                (false, true) => None,
            }
        })
    }

    /// The services that somebody wants; the others are forgotten.
    fn wanted(&self) -> Vec<Arc<str>> {
        let mut sets = self.sets();
        sets.retain(|_, set| set.receiver_count() > 0);
        sets.keys().cloned().collect()
    }

    /// Ends when somebody asks for a service that is not in `watched`.
    async fn asked_beyond(&self, watched: &[Arc<str>]) {
        while self.wanted().iter().all(|service| watched.contains(service)) {
            self.0.asked.notified().await;
        }
    }

    /// Publishes a set, and says whether its endpoints or its policy are news.
    fn publish(&self, set: EndpointSet) -> bool {
        let mut other_content = false;
        if let Some(latest) = self.sets().get(&set.service) {
            latest.send_if_modified(|now| {
                other_content = !now.has_same_content(&set);
                let news = other_content || now.known != set.known || !now.has_seen(&set.epoch, set.revision);
                if news {
                    *now = set;
                }
                news
            });
        }
        other_content
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble() = trouble;
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, latest::Sender<EndpointSet>>> {
        self.0.sets.lock().expect("no code panics while it holds this lock")
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.0.trouble.lock().expect("no code panics while it holds this lock")
    }
}
