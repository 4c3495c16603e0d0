//! The registry's table: which instances hold a lease, which policies and rules are in effect, and what has changed since when.
//!
//! Pure: time, lease ids and wall-clock times come with the calls, and nothing here does I/O. Invariants:
//! - every change has its own revision; revisions only grow, and there is one sequence for all services;
//! - a service's index holds each live instance once, at its last change, and each remembered departure once, so that
//!   "what changed since" costs what changed, and never looks at other services;
//! - an instance is removed `lease_ttl` after its last renewal, by a clock that stops while the registry is stopped
//!   (see [`Clock`]).
//!
//! It wakes no watcher itself: [`Table::take_touched`] returns the services whose watchers must be woken.

mod clock;
mod interest;
mod lease_id;
mod methods;
mod outcome;
mod policy;
mod record;
mod registration;
mod service;
mod stores;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use clock::{Clock, PULSE};
pub use interest::{Interest, Resume};
pub use lease_id::LeaseId;
use meshwork::{
    contract::meshwork::registry::v1::{AuthorizationPolicy, Instance, InstanceStatus, Policy, RefusedInstance},
    discovery::stores::shared_store,
};
pub use outcome::{Delta, Full, Granted, Held, NotAdmitted, Renewal, ServiceSnapshot, StatusNotSet, Touched};
use policy::PolicyIndex;
pub use record::Record;
pub use registration::{InstanceKey, Registration, RegistrationAttempt};
use service::{Lease, ServiceIndex};
pub use stores::StoreConflict;
use stores::{Adopted, Refused};

use crate::{
    limits::{MAX_INSTANCES, MAX_SERVICES},
    policies::has_rules,
};

/// Revisions begin here, so that 0 is never one.
const FIRST_REVISION: u64 = 1;

/// All leases and instances of one mesh.
#[derive(Debug)]
pub struct Table {
    clock: Clock,
    revision: u64,
    /// Changes up to here cannot be distinguished from "has not come back yet": older resume points get a snapshot.
    floor: u64,
    grace_end: Option<Duration>,
    services: BTreeMap<Arc<str>, ServiceIndex>,
    /// Apart from the services: a policy does not make a service known.
    policies: PolicyIndex<Policy>,
    authorizations: PolicyIndex<AuthorizationPolicy>,
    /// Each service that ever changed, once, by its last revision.
    recent: BTreeMap<u64, Arc<str>>,
    deadlines: BTreeSet<(Duration, InstanceKey)>,
    touched: Touched,
    /// Whose lease ran out, for [`take_expired`](Table::take_expired).
    expired: Vec<InstanceKey>,
    adopted: Adopted,
    refused: Refused,
    /// Services that are served from several stores.
    conflicts: BTreeSet<Arc<str>>,
}

impl Table {
    /// An empty table at `now` = 0. For the first `grace` its snapshots are provisional; zero: never.
    pub fn new(grace: Duration) -> Self {
        Self {
            clock: Clock::default(),
            revision: FIRST_REVISION,
            floor: FIRST_REVISION,
            grace_end: (!grace.is_zero()).then_some(grace),
            services: BTreeMap::new(),
            policies: PolicyIndex::default(),
            authorizations: PolicyIndex::default(),
            recent: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            touched: Touched::default(),
            expired: Vec::new(),
            adopted: Adopted::default(),
            refused: Refused::default(),
            conflicts: BTreeSet::new(),
        }
    }

    /// Gives an instance a lease and fences its previous holder, but not one with an identity for one without. A process that is
    /// late gets what it has. Where its store was adopted, those of another store leave.
    pub fn register(&mut self, now: Duration, registration: Registration) -> Result<Granted, NotAdmitted> {
        self.expire(now);
        let Registration { instance, methods, lease_ttl, attempt, nonce } = registration;
        let held =
            self.services.get(instance.service.as_str()).and_then(|service| service.lease(&instance.instance_id));
        if let Some(held) = held.filter(|_| instance.identity.is_empty()) {
            Held::check(held.record.instance())?;
        }
        if let Some(held) = held.filter(|held| attempt.is_late(&held.attempt)) {
            return Ok(held.granted());
        }
        self.check_store(&instance)?;
        self.check_refused(&instance, &attempt)?;
        let key = self.admit(&instance)?;
        self.refused.forget(&instance);
        if self.adopted.arrived(&instance) {
            self.remove_other_stores(&instance);
        }
        let deadline = self.clock.now() + lease_ttl;
        let id = LeaseId::new(&key.0, &key.1, nonce);
        let lease =
            Lease { id, ttl: lease_ttl, deadline, attempt, revision: 0, record: Record::new(instance), methods };
        let (granted, replaced) = self.change(&key.0, |service, revision| service.put(&key.1, lease, revision));
        if let Some(replaced) = replaced {
            self.deadlines.remove(&(replaced.deadline, key.clone()));
        }
        self.deadlines.insert((deadline, key));
        Ok(granted)
    }

    /// Whether a lease is in effect and held under an identity.
    pub fn held_under_identity(&self, id: &LeaseId) -> Option<Held> {
        let (service, instance_id) = id.instance()?;
        let lease = self.services.get(service)?.lease(instance_id).filter(|lease| lease.id == *id)?;
        Held::check(lease.record.instance()).err()
    }

    /// Renews a lease.
    pub fn renew(&mut self, now: Duration, id: &LeaseId) -> Renewal {
        self.expire(now);
        let now = self.clock.now();
        let Some((key, lease)) = self.lease_of_instance(id) else { return Renewal::Unknown };
        if lease.id != *id {
            return Renewal::Fenced;
        }
        let before = std::mem::replace(&mut lease.deadline, now + lease.ttl);
        let after = lease.deadline;
        self.deadlines.remove(&(before, key.clone()));
        self.deadlines.insert((after, key));
        Renewal::Renewed
    }

    /// Ends a lease, and with it its instance, and returns whether it did. A lease that is gone or fenced changes nothing.
    pub fn deregister(&mut self, now: Duration, id: &LeaseId) -> bool {
        self.expire(now);
        let Some((key, lease)) = self.lease_of_instance(id).filter(|(_, lease)| lease.id == *id) else { return false };
        let deadline = lease.deadline;
        self.deadlines.remove(&(deadline, key.clone()));
        self.remove(&key);
        true
    }

    /// Changes the status of a lease's instance; to SERVING only where it might register anew.
    pub fn set_status(&mut self, now: Duration, id: &LeaseId, status: InstanceStatus) -> Result<Granted, StatusNotSet> {
        self.expire(now);
        let lease = self.lease_of_instance(id).filter(|(_, lease)| lease.id == *id);
        let (key, lease) = lease.ok_or(StatusNotSet::UnknownLease)?;
        if lease.record.instance().status() == status {
            return Ok(lease.granted());
        }
        let mut lease = lease.clone();
        let mut instance = lease.record.instance().clone();
        if status == InstanceStatus::Serving {
            self.check_store(&instance)?;
        }
        instance.set_status(status);
        lease.record = Record::new(instance);
        let (granted, _) = self.change(&key.0, |service, revision| service.put(&key.1, lease, revision));
        Ok(granted)
    }

    /// Makes a store that of its service. Returns the instances that serve it, and those that have left because they do not: none
    /// while no instance serves it yet. `None`: no instance has this store, nor was one with it refused lately.
    pub fn adopt(
        &mut self,
        now: Duration,
        service: &str,
        store_id: &str,
    ) -> Option<(Vec<InstanceKey>, Vec<InstanceKey>)> {
        self.expire(now);
        let name: Arc<str> = service.into();
        let instances = self.services.get(service).into_iter().flat_map(ServiceIndex::instances);
        let of_store = instances.filter(|instance| instance.store_id == store_id);
        let kept: Vec<InstanceKey> =
            of_store.map(|instance| (name.clone(), instance.instance_id.as_str().into())).collect();
        if kept.is_empty() && !self.refused.of(service).iter().any(|refused| refused.store_id == store_id) {
            return None;
        }
        self.adopted.adopt(name, store_id.to_owned());
        let mut removed = Vec::new();
        if !kept.is_empty() {
            let adopted =
                Instance { service: service.to_owned(), store_id: store_id.to_owned(), ..Instance::default() };
            self.adopted.arrived(&adopted);
            removed = self.remove_other_stores(&adopted);
        }
        Some((kept, removed))
    }

    /// The services that are served from different stores, or of which an instance came with another one and was refused.
    pub fn store_conflicts(&self) -> BTreeSet<Arc<str>> {
        let refused = self.refused.services();
        self.conflicts.iter().chain(refused).cloned().collect()
    }

    /// The instances of a service that were refused lately because of their store.
    pub fn refused(&self, service: &str) -> Vec<RefusedInstance> {
        self.refused.of(service)
    }

    /// Checks that an instance serves the store of its service, where that is known: from an operator's declaration,
    /// or, once all earlier instances may have come back, from those that are there.
    fn check_store(&mut self, instance: &Instance) -> Result<(), StoreConflict> {
        let service = self.services.get(instance.service.as_str()).filter(|_| self.grace_end.is_none());
        let others = service.filter(|service| service.has_other_store(instance));
        let checked = stores::check(instance, others.into_iter().flat_map(ServiceIndex::instances), &self.adopted);
        checked.map_err(|conflict| self.refused.note(self.clock.now(), instance, conflict))
    }

    /// Whether an instance that was refused may be looked at anew: not as long as those with the right store may yet come back.
    fn check_refused(&mut self, instance: &Instance, attempt: &RegistrationAttempt) -> Result<(), StoreConflict> {
        if attempt.refused && self.provisional() && shared_store(instance).is_some() && !self.adopted.is_of(instance) {
            return Err(self.refused.note(self.clock.now(), instance, stores::not_known_yet(instance)));
        }
        Ok(())
    }

    fn remove_other_stores(&mut self, adopted: &Instance) -> Vec<InstanceKey> {
        let Some((name, service)) = self.services.get_key_value(adopted.service.as_str()) else { return Vec::new() };
        let other = service.instances().filter(|instance| stores::differ(adopted, instance));
        let others: Vec<InstanceKey> =
            other.map(|instance| (name.clone(), instance.instance_id.as_str().into())).collect();
        for key in &others {
            let lease = self.services.get(&key.0).and_then(|service| service.lease(&key.1));
            let deadline = lease.expect("just seen").deadline;
            self.deadlines.remove(&(deadline, key.clone()));
            self.remove(key);
        }
        others
    }

    /// Replaces its service's policy by this one, which says itself whether it is set.
    pub fn put_policy(&mut self, policy: Policy) {
        let service: Arc<str> = policy.service.as_str().into();
        self.revision += 1;
        self.policies.put(&service, Record::new(policy), self.revision);
        self.touch(&service);
    }

    /// Replaces its service's authorization policy by this one, which may be one without rules.
    pub fn put_authorization(&mut self, policy: AuthorizationPolicy) {
        let service: Arc<str> = policy.service.as_str().into();
        self.revision += 1;
        self.authorizations.put(&service, Record::new(policy), self.revision);
        self.touch(&service);
    }

    /// Makes room: no watcher is told anything about this service's rules any more.
    pub fn forget_authorization(&mut self, service: &str) {
        self.authorizations.forget(service);
    }

    /// Lets time pass: removes what has not been renewed in time, ends the grace period. Every change does this first, so
    /// that a lease is never found alive after its end.
    pub fn expire(&mut self, now: Duration) {
        self.clock.advance(now);
        let now = self.clock.now();
        while self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now) {
            let (_, key) = self.deadlines.pop_first().expect("just seen");
            self.remove(&key);
            self.expired.push(key);
        }
        self.refused.expire(now);
        if self.grace_end.is_some_and(|end| end <= now) {
            self.grace_end = None;
            self.revision += 1;
            self.floor = self.revision;
            self.touched = Touched::All;
        }
    }

    /// When [`expire`](Self::expire) has something to do next, as seen at `now`; never further away than [`PULSE`], by
    /// which the clock sees that the process is running.
    pub fn next_expiry(&self, now: Duration) -> Duration {
        let first = self.deadlines.first().map(|(deadline, _)| *deadline);
        let due = first.into_iter().chain(self.grace_end).min();
        due.map_or(now + PULSE, |due| self.clock.to_caller(due).min(now + PULSE))
    }

    /// Whose watchers have something new to see since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The instances whose lease ran out since the last call.
    pub fn take_expired(&mut self) -> Vec<InstanceKey> {
        std::mem::take(&mut self.expired)
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether instances may still be coming back after a restart of the registry.
    pub fn provisional(&self) -> bool {
        self.grace_end.is_some()
    }

    /// The whole state of the watched services.
    pub fn snapshot(&self, interest: &Interest) -> Vec<ServiceSnapshot> {
        let state = |name: &Arc<str>, service: Option<&ServiceIndex>| ServiceSnapshot {
            service: name.clone(),
            known: service.is_some(),
            instances: service.map(|service| service.records_after(None).collect()).unwrap_or_default(),
            policy: self.policies.get(name),
            authorization: self.authorizations.get(name),
        };
        let states =
            |names: &BTreeSet<Arc<str>>| names.iter().map(|name| state(name, self.services.get(name))).collect();
        match interest {
            Interest::All => {
                let with_policy = self.policies.after(None).map(|(name, _)| name);
                let with_rules = self.authorizations.after(None).map(|(name, _)| name);
                states(&self.services.keys().chain(with_policy).chain(with_rules).cloned().collect())
            }
            Interest::Services(names) => states(names),
        }
    }

    /// What has changed in the watched services after `revision`. `None`: that is too far back (or was never here), take
    /// a [`snapshot`](Self::snapshot).
    pub fn changes(&self, interest: &Interest, revision: u64) -> Option<Delta> {
        if revision < self.floor || revision > self.revision {
            return None;
        }
        let policies = self.policies.changes_after(interest, revision)?;
        let authorizations = self.authorizations.changes_after(interest, revision)?;
        let mut delta = Delta { policies, authorizations, ..Delta::default() };
        let mut gather = |name: &Arc<str>| match self.services.get(name) {
            Some(service) => service.changes_after(name, revision, &mut delta),
            None => Some(()),
        };
        match interest {
            Interest::All => self.recent.range(revision + 1..).try_for_each(|(_, name)| gather(name))?,
            Interest::Services(names) => names.iter().try_for_each(gather)?,
        }
        Some(delta)
    }

    /// Up to `size` services after `after`, each with the number of its instances.
    pub fn services(&self, after: Option<&str>, size: usize) -> Vec<(Arc<str>, usize)> {
        let page = service::after(&self.services, after).take(size);
        page.map(|(name, service)| (name.clone(), service.len())).collect()
    }

    /// Up to `size` instances of a service after the id `after`. `None`: no instance of it was ever registered.
    pub fn instances(&self, service: &str, after: Option<&str>, size: usize) -> Option<Vec<Record>> {
        Some(self.services.get(service)?.records_after(after).take(size).collect())
    }

    /// Each list of methods that an instance of a service has told, once.
    pub fn methods(&self, service: &str) -> Vec<Arc<[String]>> {
        self.services.get(service).map(ServiceIndex::methods).unwrap_or_default()
    }

    /// A service's policy, if one is set.
    pub fn policy(&self, service: &str) -> Option<Record<Policy>> {
        self.policies.get(service)
    }

    /// Up to `size` policies that are set, of the services after `after`.
    pub fn policies(&self, after: Option<&str>, size: usize) -> Vec<Record<Policy>> {
        self.policies.after(after).map(|(_, policy)| policy.clone()).take(size).collect()
    }

    /// A service's authorization policy, if one was set or deleted.
    pub fn authorization(&self, service: &str) -> Option<Record<AuthorizationPolicy>> {
        self.authorizations.get(service)
    }

    /// Up to `size` authorization policies that have rules, of the services after `after`.
    pub fn authorizations(&self, after: Option<&str>, size: usize) -> Vec<Record<AuthorizationPolicy>> {
        let policies = self.authorizations.after(after).map(|(_, policy)| policy);
        policies.filter(|policy| has_rules(policy.message())).take(size).cloned().collect()
    }

    /// Every instance of every service.
    pub fn all_instances(&self) -> Vec<Record> {
        self.services.values().flat_map(|service| service.records_after(None)).collect()
    }

    /// Finds room for an instance, and the shared names of its service and itself.
    fn admit(&mut self, instance: &Instance) -> Result<InstanceKey, Full> {
        let known = self.services.get_key_value(instance.service.as_str());
        let replaces = known.is_some_and(|(_, service)| service.lease(&instance.instance_id).is_some());
        if !replaces && self.deadlines.len() >= MAX_INSTANCES {
            return Err(Full::Instances);
        }
        let service: Arc<str> = match known {
            Some((name, _)) => name.clone(),
            None if self.services.len() >= MAX_SERVICES => return Err(Full::Services),
            None => instance.service.as_str().into(),
        };
        Ok((service, instance.instance_id.as_str().into()))
    }

    /// The lease that holds the instance which `id` was given for, be it `id` or a later one.
    fn lease_of_instance(&mut self, id: &LeaseId) -> Option<(InstanceKey, &mut Lease)> {
        let (service, instance_id) = id.instance()?;
        let name = self.services.get_key_value(service)?.0.clone();
        let (instance_id, lease) = self.services.get_mut(service)?.lease_mut(instance_id)?;
        Some(((name, instance_id), lease))
    }

    fn remove(&mut self, (service, instance_id): &InstanceKey) {
        self.change(service, |service, revision| service.remove(instance_id, revision));
    }

    /// Makes a change to a service at the next revision, and keeps every index that knows when a service last changed.
    fn change<R>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut ServiceIndex, u64) -> R) -> R {
        self.revision += 1;
        let service = self.services.entry(name.clone()).or_default();
        self.recent.remove(&service.last_change());
        let conflicted = service.has_conflict();
        let result = change(service, self.revision);
        match (conflicted, service.has_conflict()) {
            (false, true) => _ = self.conflicts.insert(name.clone()),
            (true, false) => _ = self.conflicts.remove(name),
            (true, true) | (false, false) => {}
        }
        self.recent.insert(self.revision, name.clone());
        self.touch(name);
        result
    }

    fn touch(&mut self, name: &Arc<str>) {
        match &mut self.touched {
            Touched::All => {}
            Touched::Services(names) => _ = names.insert(name.clone()),
        }
    }
}
