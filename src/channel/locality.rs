//! Where a client is, and which endpoints it uses therefore.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    balance::{DEFAULT_SUBSET, subset},
    contract::meshwork::registry::v1::Instance,
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
    /// Which of the instances it uses. What shares are kept of is a group of its own: a version of a split, the own zone.
    pub(super) fn subset<'a>(
        &self,
        policy: &Policy,
        instances: impl Iterator<Item = (&'a String, &'a Arc<Instance>)>,
    ) -> BTreeSet<&'a str> {
        let group = |instance: &'a Instance| {
            let named = policy.split.as_ref().is_some_and(|split| split.weights.contains_key(&instance.version));
            (named.then_some(&instance.version), policy.zones.same_zone_first && *instance.zone == *self.zone)
        };
        subset(self.client, self.subset_size, instances.map(|(id, instance)| (id.as_str(), group(instance))))
    }
}
