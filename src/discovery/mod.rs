//! What is there: the instances of every service, and this one among them.
//!
//! ```text
//!   registry A ── Watch, one stream for all services ──> watch (a task each) ── fold ──┐
//!   registry B ── ...                                                                  ├─ union ─> an EndpointSet per
//!                           cache: the last sets on disk, for a cold start ────────────┘           service ─> channels
//! ```
//!
//! A set is only ever replaced by what registries say: while one is unreachable its last word stays, and nothing is removed on
//! the word of a registry that has just started and does not know yet which instances are coming back. Authorization rules end only by
//! an operator's word: see [`authorization`](crate::authorization).

pub(crate) mod announce;
mod cache;
mod fold;
pub mod stores;
mod union;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::watch as latest, time::sleep};

use crate::{contract::meshwork::registry::v1::InstanceStatus, service_name::check_service_name};
use union::Union;

pub use crate::endpoint_set::{EndpointSet, Endpoints};

pub(crate) use cache::Cache;
pub(crate) use watch::{MAX_WATCH_RESPONSE, run};

const STORES_DIFFER: &str = "meshwork_stores_differ";
const POLICIES_DIFFER: &str = "meshwork_policies_differ";
/// How often they are set again.
const REPEAT_GAUGES: Duration = Duration::from_secs(15);

/// What channels ask, and the watching tasks answer. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The latest set of every service that was asked for.
    sets: Mutex<BTreeMap<Arc<str>, latest::Sender<EndpointSet>>>,
    /// What the registries have sent. Locked before `sets` where both are locked.
    union: Mutex<Union>,
    /// A service was asked for that was not watched.
    asked: latest::Sender<()>,
    /// Why each registry cannot be watched, while it cannot.
    trouble: Mutex<Vec<Option<String>>>,
    /// How each registry stands.
    registries: latest::Sender<Vec<RegistryState>>,
    /// Services of which registries tell different policies.
    differing: Mutex<BTreeSet<Arc<str>>>,
    /// Services whose instances serve different stores.
    of_two_stores: Mutex<BTreeSet<Arc<str>>>,
}

/// How a registry of the list stands, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistryState {
    /// It cannot be reached.
    Away,
    /// It is watched; its life (epoch).
    There(Arc<str>),
    /// It is the same store as another that is watched: nothing is to be told to it, or to be heard from it, that is not
    /// already.
    Same,
}

impl Discovery {
    /// Of this number of registries, each of which must be [watched](run).
    pub(crate) fn new(registries: usize) -> Self {
        Self(Arc::new(Shared {
            sets: Mutex::default(),
            union: Mutex::new(Union::new(registries)),
            asked: latest::Sender::new(()),
            trouble: Mutex::new(vec![None; registries]),
            registries: latest::Sender::new(vec![RegistryState::Away; registries]),
            differing: Mutex::default(),
            of_two_stores: Mutex::default(),
        }))
    }

    /// The endpoints of a service, now and as they change. From here on the service is watched, for as long as a
    /// receiver is held.
    pub(crate) fn endpoints(&self, service: &str) -> latest::Receiver<EndpointSet> {
        let union = self.union();
        let mut sets = self.sets();
        if let Some(set) = sets.get(service) {
            return set.subscribe();
        }
        // It may be watched still for a receiver that has just gone: the next change of it may be far.
        let service: Arc<str> = service.into();
        let known = union.set(&service).map_or_else(|| EndpointSet::unknown(&service), |(set, _)| set);
        let (set, endpoints) = latest::channel(known);
        sets.insert(service, set);
        drop((sets, union));
        self.0.asked.send_replace(());
        endpoints
    }

    /// Whether the registries have answered about a service that is still asked for, and know nothing of it.
    pub(crate) fn is_unknown(&self, service: &str) -> bool {
        self.sets().get(service).is_some_and(|set| {
            let set = set.borrow();
            set.is_heard() && !set.known
        })
    }

    /// What there is to say when a call finds no endpoint. `registries`: how the connections to them stand.
    pub(crate) fn explain(&self, service: &str, registries: impl Iterator<Item = String>) -> Option<String> {
        let trouble = self.trouble().clone();
        if let Some(all) = trouble.into_iter().collect::<Option<Vec<_>>>() {
            return Some(all.join("; "));
        }
        let sets = self.sets();
        let set = sets.get(service)?.borrow();
        match (set.is_heard(), set.known) {
            (false, _) => {
                let registries = registries.collect::<Vec<_>>().join("; ");
                Some(format!("the registry has not answered yet: {registries}"))
            }
            (true, false) => Some("the registry knows no such service".to_owned()),
            (true, true) => None,
        }
    }

    /// How each registry stands, in the order of their list.
    pub(crate) fn registries(&self) -> latest::Receiver<Vec<RegistryState>> {
        self.0.registries.subscribe()
    }

    /// Notes how a registry stands. Returns whether that could be: not, if another with the same life is watched already.
    fn stands(&self, index: usize, state: RegistryState) -> bool {
        let mut accepted = true;
        self.0.registries.send_if_modified(|registries| {
            let same = |(other, known): (usize, &RegistryState)| {
                other != index && matches!(known, RegistryState::There(_)) && *known == state
            };
            accepted = !registries.iter().enumerate().any(same);
            let state = if accepted { state } else { RegistryState::Same };
            let changed = registries[index] != state;
            registries[index] = state;
            changed
        });
        accepted
    }

    /// The services of which a receiver is held; the others are forgotten. What cannot be a service's name is not asked for: the
    /// registry would refuse the watch of all of them.
    fn wanted(&self) -> Vec<Arc<str>> {
        let mut sets = self.sets();
        sets.retain(|_, set| set.receiver_count() > 0);
        sets.keys().filter(|service| check_service_name(service).is_ok()).cloned().collect()
    }

    /// Ends when a service is asked for that is not in `watched`.
    async fn asked_beyond(&self, watched: &[Arc<str>]) {
        // Subscribe before looking, so that no request falls in between.
        let mut asked = self.0.asked.subscribe();
        while self.wanted().iter().all(|service| watched.contains(service)) {
            asked.changed().await.expect("the sender is here");
        }
    }

    /// Takes in what a registry has sent, or that it is unreachable, and publishes what follows for these services. Returns the sets
    /// whose endpoints, policy or rules have changed.
    fn change(&self, services: &[Arc<str>], change: impl FnOnce(&mut Union)) -> Vec<EndpointSet> {
        let mut union = self.union();
        change(&mut union);
        let sets: Vec<_> = services.iter().filter_map(|service| union.set(service)).collect();
        let mut news = Vec::new();
        // Under the union's lock, so that an older set never replaces a newer one.
        for (set, policies_differ) in sets {
            if self.publish(&set, policies_differ) {
                news.push(set);
            }
        }
        news
    }

    /// Publishes a set. Returns whether its endpoints, its policy or its rules have changed.
    fn publish(&self, set: &EndpointSet, policies_differ: bool) -> bool {
        let mut other_content = false;
        if let Some(latest) = self.sets().get(&set.service) {
            latest.send_if_modified(|now| {
                other_content = !now.has_same_content(set);
                let news = other_content || now.known != set.known || now.revisions != set.revisions;
                if news {
                    *now = set.clone();
                }
                news
            });
        }
        self.tell_whether_policies(&set.service, policies_differ);
        if other_content {
            self.tell_whether_stores(set);
        }
        other_content
    }

    /// What each registry of a list refuses can be there in their union.
    fn tell_whether_stores(&self, set: &EndpointSet) {
        let serving = set.endpoints.values().filter(|instance| instance.status() == InstanceStatus::Serving);
        let differ = stores::some_differ(serving.filter_map(|instance| stores::shared_store(instance)));
        let service = &set.service;
        let turned = turned(&self.0.of_two_stores, service, differ);
        if turned {
            metrics::gauge!(STORES_DIFFER, "service" => service.to_string()).set(u8::from(differ));
        }
        if turned && differ {
            tracing::warn!(%service, "instances of the service have different stores: see `meshwork instances`");
        }
    }

    /// Sets the gauges of what differs again and again: exporters drop one that was not set for a while.
    pub(crate) async fn repeat_gauges(self) -> Infallible {
        loop {
            sleep(REPEAT_GAUGES).await;
            for (gauge, services) in [(STORES_DIFFER, &self.0.of_two_stores), (POLICIES_DIFFER, &self.0.differing)] {
                for service in services.lock().iter() {
                    metrics::gauge!(gauge, "service" => service.to_string()).set(1);
                }
            }
        }
    }

    fn tell_whether_policies(&self, service: &Arc<str>, differ: bool) {
        let turned = turned(&self.0.differing, service, differ);
        if turned {
            metrics::gauge!(POLICIES_DIFFER, "service" => service.to_string()).set(u8::from(differ));
        }
        if turned && differ {
            tracing::warn!(%service, "registries have different policies: the one set last is used");
        }
    }

    /// Why the registry at `index` cannot be watched, or that it can. Returns whether that is news.
    fn note(&self, index: usize, trouble: Option<String>) -> bool {
        let known = &mut self.trouble()[index];
        let news = *known != trouble;
        *known = trouble;
        news
    }

    fn union(&self) -> MutexGuard<'_, Union> {
        self.0.union.lock()
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, latest::Sender<EndpointSet>>> {
        self.0.sets.lock()
    }

    fn trouble(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.0.trouble.lock()
    }
}

/// Notes whether a service is one of these now. Returns whether that has changed.
fn turned(all: &Mutex<BTreeSet<Arc<str>>>, service: &Arc<str>, is_one: bool) -> bool {
    let mut all = all.lock();
    if is_one { all.insert(service.clone()) } else { all.remove(service) }
}
