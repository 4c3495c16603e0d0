//! One service's part of the table: its leases, and an index of its instances by when they last changed.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use meshwork::{
    contract::meshwork::registry::v1::Instance,
    discovery::stores::{Store, are_other, shared_store, some_differ},
};

use super::{Delta, Granted, LeaseId, Record, RegistrationAttempt, methods::MethodLists};
use crate::limits::MAX_TOMBSTONES;

/// A lease as the table keeps it.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    pub(super) deadline: Duration,
    /// The call that it was given for.
    pub(super) attempt: RegistrationAttempt,
    /// When its instance last changed.
    pub(super) revision: u64,
    pub(super) record: Record,
    /// What its instance has told of its methods.
    pub(super) methods: Arc<[String]>,
}

impl Lease {
    pub(super) fn granted(&self) -> Granted {
        Granted { lease_id: self.id.clone(), lease_ttl: self.ttl, revision: self.revision, record: self.record.clone() }
    }
}

/// A service's leases by instance_id, and when each changed.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    leases: BTreeMap<Arc<str>, Lease>,
    live: BTreeMap<u64, Arc<str>>,
    /// Departures that are remembered, both ways; an instance that comes back is taken out.
    gone: BTreeMap<u64, Arc<str>>,
    gone_at: HashMap<Arc<str>, u64>,
    /// How many instances serve each store that is the whole service's, by its id and place: more than one is a conflict.
    stores: BTreeMap<(String, String), usize>,
    methods: MethodLists,
    /// Departures up to here are forgotten.
    floor: u64,
    last_change: u64,
}

impl ServiceIndex {
    /// The number of instances.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// The revision of the last change. 0: there was none.
    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    pub(super) fn lease(&self, instance_id: &str) -> Option<&Lease> {
        self.leases.get(instance_id)
    }

    /// An instance's lease, with its shared id.
    pub(super) fn lease_mut(&mut self, instance_id: &str) -> Option<(Arc<str>, &mut Lease)> {
        let id = self.leases.get_key_value(instance_id)?.0.clone();
        Some((id, self.leases.get_mut(instance_id)?))
    }

    /// Whether an instance has another store than some that is the whole service's.
    pub(super) fn has_other_store(&self, instance: &Instance) -> bool {
        shared_store(instance).is_some_and(|store| self.stores().any(|other| are_other(store, other)))
    }

    /// Whether there are several stores that are the whole service's.
    pub(super) fn has_conflict(&self) -> bool {
        some_differ(self.stores())
    }

    fn stores(&self) -> impl Iterator<Item = Store<'_>> {
        self.stores.keys().map(|(id, place)| (id.as_str(), place.as_str()))
    }

    fn count_store(&mut self, instance: &Instance, joins: bool) {
        let Some((id, place)) = shared_store(instance) else { return };
        let store = (id.to_owned(), place.to_owned());
        let count = self.stores.entry(store.clone()).or_default();
        *count = if joins { *count + 1 } else { *count - 1 };
        if *count == 0 {
            self.stores.remove(&store);
        }
    }

    /// Puts an instance in its place at `revision`; returns what its holder has now, and the lease that was there.
    pub(super) fn put(&mut self, instance_id: &Arc<str>, mut lease: Lease, revision: u64) -> (Granted, Option<Lease>) {
        lease.revision = revision;
        let granted = lease.granted();
        if let Some(gone_at) = self.gone_at.remove(instance_id) {
            self.gone.remove(&gone_at);
        }
        self.count_store(granted.record.instance(), true);
        self.methods.add(&mut lease.methods);
        let before = self.leases.insert(instance_id.clone(), lease);
        if let Some(before) = &before {
            self.live.remove(&before.revision);
            self.count_store(before.record.instance(), false);
            self.methods.remove(&before.methods);
        }
        self.live.insert(revision, instance_id.clone());
        self.last_change = revision;
        (granted, before)
    }

    /// Takes an instance out at `revision`, and remembers that it is gone.
    pub(super) fn remove(&mut self, instance_id: &Arc<str>, revision: u64) {
        let lease = self.leases.remove(instance_id).expect("an instance is removed once");
        self.live.remove(&lease.revision);
        self.count_store(lease.record.instance(), false);
        self.methods.remove(&lease.methods);
        self.last_change = revision;
        self.gone.insert(revision, instance_id.clone());
        self.gone_at.insert(instance_id.clone(), revision);
        if self.gone.len() > MAX_TOMBSTONES {
            let (oldest, forgotten) = self.gone.pop_first().expect("just counted");
            self.gone_at.remove(&forgotten);
            self.floor = oldest;
        }
    }

    /// The instances, in the order of their ids.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.leases.values().map(|lease| lease.record.instance())
    }

    /// Each list of methods that an instance has told.
    pub(super) fn methods(&self) -> Vec<Arc<[String]>> {
        self.methods.all()
    }

    /// The instances after an id, in the order of their ids.
    pub(super) fn records_after(&self, after_id: Option<&str>) -> impl Iterator<Item = Record> + use<'_> {
        after(&self.leases, after_id).map(|(_, lease)| lease.record.clone())
    }

    /// Appends what changed after `revision` to `delta`. `None`: that is forgotten.
    pub(super) fn changes_after(&self, name: &Arc<str>, revision: u64, delta: &mut Delta) -> Option<()> {
        if revision < self.floor {
            return None;
        }
        let later = (Bound::Excluded(revision), Bound::Unbounded);
        delta.updated.extend(self.live.range(later).map(|(_, id)| self.leases[id].record.clone()));
        delta.removed.extend(self.gone.range(later).map(|(_, id)| (name.clone(), id.clone())));
        Some(())
    }
}

/// The entries of a map after a key.
pub(super) fn after<'a, V>(
    map: &'a BTreeMap<Arc<str>, V>,
    key: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> + use<'a, V> {
    let start = key.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<str, _>((start, Bound::Unbounded))
}
