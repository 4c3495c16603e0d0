//! Where a client is, and which endpoints it uses therefore.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    balance::{DEFAULT_SUBSET, subset},
    contract::meshwork::registry::v1::{Instance, InstanceStatus},
    endpoint_set::Endpoints,
    policy::Policy,
};

/// Where the client is, and which client it is.
#[derive(Clone, Debug)]
pub(crate) struct Locality {
    /// Its zone; empty: in none.
    pub(crate) zone: Arc<str>,
    /// Endpoints of a service that it uses; 0: all.
    pub(crate) subset_size: usize,
    /// What makes its subsets differ from those of other clients.
    pub(crate) client: u64,
}

impl Default for Locality {
    /// A new client in no zone.
    fn default() -> Self {
        Self { zone: "".into(), subset_size: DEFAULT_SUBSET, client: rand::random() }
    }
}

impl Locality {
    /// Which of the serving instances it uses; `None`: all of them. Endpoints with a guaranteed share are ranked as separate groups:
    /// a version of a split, the own zone.
    pub(super) fn subset<'a>(&self, policy: &Policy, endpoints: &'a Endpoints) -> Option<BTreeSet<&'a str>> {
        let serving = || endpoints.iter().filter(|(_, instance)| instance.status() == InstanceStatus::Serving);
        if self.subset_size == 0 || serving().count() <= self.subset_size {
            return None;
        }
        let group = |instance: &'a Instance| {
            let named = policy.split.as_ref().is_some_and(|split| split.weights.contains_key(&instance.version));
            (named.then_some(&instance.version), policy.zones.same_zone_first && *instance.zone == *self.zone)
        };
        Some(subset(self.client, self.subset_size, serving().map(|(id, instance)| (&**id, group(instance)))))
    }
}
