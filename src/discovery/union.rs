//! What several registries report, as one: the union of their instances, by id.
//!
//! Registries of one epoch are one store behind several addresses, and report the same. Those of different epochs know
//! nothing of each other: an instance registers at each that it reaches, and exists while one of them lists it. Pure.
//!
//! - The last word of an unreachable registry counts, but not against a reachable one: an instance that another says has left,
//!   has left.
//! - What a registry has not confirmed since its restart (it is provisional, or silent so far) counts like the word of an
//!   unreachable one.
//! - Of differing policies the one that was set last holds, and the difference is logged.
//! - Authorization rules outlive the word of the registry that has said them: only rules or a deletion that came later replace them.
//! - That a service has no rules is known once every registry has spoken, or is not to be waited for: the others may have lost them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost_types::Timestamp;

use super::fold::{Earlier, Service, View};
use crate::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{Instance, InstanceStatus, ResumePoint, WatchResponse},
    endpoint_set::{EndpointSet, Endpoints, changes},
    policy::Policy,
};

/// What is known from all registries, and from an earlier run.
#[derive(Debug, Default)]
pub(super) struct Union {
    registries: Vec<Registry>,
    /// What an earlier run has left on disk, until a registry has sent everything.
    earlier: View,
    /// The authorization rules of each service that a view is of.
    authorizations: BTreeMap<Arc<str>, Authorization>,
}

#[derive(Debug, Default)]
struct Registry {
    view: View,
    /// Whether its watch is open.
    there: bool,
    /// Whether nobody waits for its word.
    excused: bool,
}

/// What is known of the authorization rules of a service.
#[derive(Debug)]
struct Authorization {
    /// As they were set last.
    latest: Knowledge,
    /// The registries that have not spoken of the service, and may know of rules.
    awaited: BTreeSet<usize>,
}

impl Authorization {
    fn known(&self) -> Knowledge {
        match &self.latest {
            Knowledge::None { .. } if !self.awaited.is_empty() => Knowledge::Unknown,
            latest => latest.clone(),
        }
    }
}

impl Union {
    /// The given number of registries, none of which has sent anything yet.
    pub(super) fn new(registries: usize) -> Self {
        Self { registries: (0..registries).map(|_| Registry::default()).collect(), ..Self::default() }
    }

    /// Takes in a response of the registry at `index`.
    pub(super) fn apply(&mut self, index: usize, response: WatchResponse, services: &[Arc<str>]) {
        let before = services.iter().map(|service| self.endpoints(index, service)).collect::<Vec<_>>();
        let registry = &mut self.registries[index];
        registry.there = true;
        registry.excused = false;
        registry.view.apply(response);
        for service in services {
            if let Some(told) = self.registries[index].view.service(service) {
                let told = told.authorization.clone();
                let authorization = self.authorization(service);
                authorization.latest.learn(&told);
                // Rules that are not understood are none that are known.
                if told != Knowledge::Unknown {
                    authorization.awaited.remove(&index);
                }
            }
        }
        self.succeed(index);
        for (service, before) in services.iter().zip(before) {
            let now = self.endpoints(index, service);
            if !Arc::ptr_eq(&before, &now) {
                let left = changes(&before, &now).filter(|(_, _, now)| now.is_none());
                left.for_each(|(id, ..)| self.has_left(index, service, id));
            }
            if self.registries[index].view.service(service).is_some_and(|service| service.settled) {
                self.earlier.forget_service(service);
            }
        }
    }

    /// The watch of the registry at `index` has ended.
    pub(super) fn away(&mut self, index: usize) {
        self.registries[index].there = false;
        self.registries[index].view.away();
    }

    /// The registry at `index` is not waited for any longer: it has been away for too long, or is the store of another one.
    pub(super) fn excuse(&mut self, index: usize) {
        self.registries[index].excused = true;
        for authorization in self.authorizations.values_mut() {
            authorization.awaited.remove(&index);
        }
    }

    /// Takes in what an earlier run knew about a service that this one has not heard of yet.
    pub(super) fn recall(&mut self, service: &str, earlier: Earlier) {
        if !self.has(service) {
            self.authorization(service).latest.learn(&earlier.authorization);
            self.earlier.recall(service, earlier);
        }
    }

    /// Takes in the rules that an earlier run knew.
    pub(super) fn recall_rules(&mut self, service: &str, rules: &Knowledge) {
        self.authorization(service).latest.learn(rules);
    }

    /// Forgets the services that the registry at `index` is no longer watched for. What other registries have told stays: their
    /// own watches may stand, and would not tell it again.
    pub(super) fn retain(&mut self, index: usize, services: &[Arc<str>]) {
        self.registries[index].view.retain(services);
        self.earlier.retain(services);
        let mut authorizations = std::mem::take(&mut self.authorizations);
        authorizations.retain(|service, _| self.has(service) || services.contains(service));
        self.authorizations = authorizations;
    }

    /// Whether anything is known of a service.
    pub(super) fn has(&self, service: &str) -> bool {
        self.views().any(|(view, _)| view.has(service))
    }

    /// Where the watch of the registry at `index` goes on.
    pub(super) fn resume_point(&self, index: usize) -> Option<ResumePoint> {
        self.registries[index].view.resume_point()
    }

    /// The set of a known service, and whether its registries' policies or authorization rules differ.
    pub(super) fn set(&self, service: &Arc<str>) -> Option<(EndpointSet, bool)> {
        let told: Vec<(&Service, bool)> =
            self.views().filter_map(|(view, there)| Some((view.service(service)?, there))).collect();
        let (policy, policies_differ) = policy(&told);
        let authorization = self.authorizations.get(service);
        let differ = policies_differ || authorization.is_some_and(|known| rules_differ(&told, &known.latest));
        if told.is_empty() {
            return None;
        }
        let mut revisions: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (epoch, revision) in self.registries.iter().filter_map(|registry| registry.view.at()) {
            let seen = revisions.entry(epoch.clone()).or_default();
            *seen = revision.max(*seen);
        }
        let set = EndpointSet {
            service: service.clone(),
            revisions,
            known: told.iter().any(|(service, _)| service.known),
            endpoints: endpoints(&told),
            policy,
            authorization: authorization.map(Authorization::known).unwrap_or_default(),
        };
        Some((set, differ))
    }

    /// What an unreachable registry of the same store has sent counts as an earlier word of the one at `index`.
    fn succeed(&mut self, index: usize) {
        let epoch = self.registries[index].view.at().map(|(epoch, _)| epoch.clone());
        let is_same = |registry: &Registry| registry.view.at().map(|(epoch, _)| epoch) == epoch.as_ref();
        for (other, registry) in self.registries.iter_mut().enumerate() {
            if other != index && !registry.there && is_same(registry) {
                registry.view = View::default();
            }
        }
    }

    fn authorization(&mut self, service: &str) -> &mut Authorization {
        let registries = self.registries.iter().enumerate();
        let awaited = || registries.filter(|(_, registry)| !registry.excused).map(|(index, _)| index).collect();
        let unheard = || Authorization { latest: Knowledge::Unknown, awaited: awaited() };
        self.authorizations.entry(service.into()).or_insert_with(unheard)
    }

    fn views(&self) -> impl Iterator<Item = (&View, bool)> {
        self.registries.iter().map(|registry| (&registry.view, registry.there)).chain([(&self.earlier, false)])
    }

    fn endpoints(&self, index: usize, service: &str) -> Endpoints {
        self.registries[index].view.service(service).map(|service| service.endpoints.clone()).unwrap_or_default()
    }

    /// The registry at `index` reports that an instance has left.
    fn has_left(&mut self, index: usize, service: &str, instance_id: &str) {
        for (other, registry) in self.registries.iter_mut().enumerate() {
            if other != index {
                registry.view.forget(service, instance_id, !registry.there);
            }
        }
        self.earlier.forget(service, instance_id, true);
    }
}

/// All instances; for one known to several registries, a reachable registry's word counts, and among those the most cautious.
fn endpoints(told: &[(&Service, bool)]) -> Endpoints {
    if let [(service, _)] = told {
        return service.endpoints.clone();
    }
    let mut all: BTreeMap<Arc<str>, (bool, &Arc<Instance>)> = BTreeMap::new();
    for (service, there) in told {
        for (id, instance) in service.endpoints.iter() {
            let word = (*there, caution(instance));
            if all.get(id).is_none_or(|(there, known)| (*there, caution(known)) < word) {
                all.insert(id.clone(), (*there, instance));
            }
        }
    }
    Arc::new(all.into_iter().map(|(id, (_, instance))| (id, instance.clone())).collect())
}

/// Of two states of one instance, the one that keeps calls away was set for a reason, and has yet to reach the other registry.
fn caution(instance: &Instance) -> u8 {
    match instance.status() {
        InstanceStatus::Unspecified => 0,
        InstanceStatus::Serving => 1,
        InstanceStatus::Starting => 2,
        InstanceStatus::NotServing => 3,
        InstanceStatus::Draining => 4,
    }
}

/// The policy that was set last, and whether registries that are there tell of different ones.
fn policy(told: &[(&Service, bool)]) -> (Arc<Policy>, bool) {
    let time = |service: &Service| service.policy_time.as_ref().map(|Timestamp { seconds, nanos }| (*seconds, *nanos));
    // Of those that were set at the same time, or never, the word of one that is there.
    let latest = told.iter().max_by_key(|(service, there)| (time(service), *there));
    let latest = latest.map(|(service, _)| service.policy.clone()).unwrap_or_default();
    let differ = settled(told).any(|service| service.policy != latest);
    (latest, differ)
}

/// Whether registries that are there tell of other rules than those in effect.
fn rules_differ(told: &[(&Service, bool)], in_effect: &Knowledge) -> bool {
    // Each registry has its own time for them.
    let version = |known: &Knowledge| known.rules().map(|rules| rules.etag().to_owned());
    settled(told).any(|service| version(&service.authorization) != version(in_effect))
}

/// What the registries that are there have told completely.
fn settled<'a>(told: &'a [(&'a Service, bool)]) -> impl Iterator<Item = &'a Service> {
    told.iter().filter(|(service, there)| *there && service.settled).map(|(service, _)| *service)
}

#[cfg(test)]
mod tests;
