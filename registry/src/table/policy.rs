//! Policies of one kind as watchers see them: the latest of each service, and when it changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{Interest, Record, service::after};
use crate::{limits::MAX_TOMBSTONES, policies::Kept};

/// Policies by service, with those that were taken back, as far as that is remembered. One that was deleted in a way that is
/// kept is one that is set.
#[derive(Debug)]
pub(super) struct PolicyIndex<M> {
    latest: BTreeMap<Arc<str>, (u64, Record<M>)>,
    by_revision: BTreeMap<u64, Arc<str>>,
    /// When policies were taken back.
    taken_back: BTreeSet<u64>,
    /// Those that were taken back up to here are forgotten.
    floor: u64,
}

impl<M> Default for PolicyIndex<M> {
    fn default() -> Self {
        Self { latest: BTreeMap::new(), by_revision: BTreeMap::new(), taken_back: BTreeSet::new(), floor: 0 }
    }
}

impl<M: Kept> PolicyIndex<M> {
    /// Puts a policy in the place of the one before, at `revision`.
    pub(super) fn put(&mut self, service: &Arc<str>, policy: Record<M>, revision: u64) {
        let set = policy.message().is_set();
        self.forget(service);
        self.latest.insert(service.clone(), (revision, policy));
        self.by_revision.insert(revision, service.clone());
        if !set {
            self.taken_back.insert(revision);
        }
        if self.taken_back.len() > MAX_TOMBSTONES {
            let oldest = self.taken_back.pop_first().expect("just counted");
            let service = self.by_revision.remove(&oldest).expect("every policy has its revision");
            self.latest.remove(&service);
            self.floor = oldest;
        }
    }

    /// Takes out a service's policy as if there had never been one. Watchers keep what they know of it.
    pub(super) fn forget(&mut self, service: &str) {
        if let Some((before, _)) = self.latest.remove(service) {
            self.by_revision.remove(&before);
            self.taken_back.remove(&before);
        }
    }

    /// A service's policy, if one is set.
    pub(super) fn get(&self, service: &str) -> Option<Record<M>> {
        self.latest.get(service).map(|(_, policy)| policy.clone()).filter(|policy| policy.message().is_set())
    }

    /// The policies that are set of the services after one, by service.
    pub(super) fn after(&self, service: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Record<M>)> {
        let policies = after(&self.latest, service).map(|(service, (_, policy))| (service, policy));
        policies.filter(|(_, policy)| policy.message().is_set())
    }

    /// What changed after `revision`. `None`: that is forgotten.
    pub(super) fn changes_after(&self, interest: &Interest, revision: u64) -> Option<Vec<Record<M>>> {
        if revision < self.floor {
            return None;
        }
        let later = |service| self.latest.get(service).filter(|(changed, _)| *changed > revision);
        let policies = match interest {
            Interest::All => {
                let names = self.by_revision.range((Bound::Excluded(revision), Bound::Unbounded));
                names.map(|(_, service)| self.latest[service].1.clone()).collect()
            }
            Interest::Services(names) => names.iter().filter_map(later).map(|(_, policy)| policy.clone()).collect(),
        };
        Some(policies)
    }
}
