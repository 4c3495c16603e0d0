//! Where a client is, and which endpoints it therefore uses.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    balance::{DEFAULT_SUBSET, subset},
    contract::meshwork::registry::v1::Instance,
    policy::Policy,
};

/// Who and where the client is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its zone; empty: in none.
    pub(crate) zone: Arc<str>,
    /// Endpoints of a service that it uses; 0: all.
    pub(crate) subset_size: usize,
    /// What makes its subsets differ from those of other clients.
    pub(crate) client: u64,
}

impl Default for Place {
    /// A new client in no zone.
    fn default() -> Self {
        Self { zone: "".into(), subset_size: DEFAULT_SUBSET, client: rand::random() }
    }
}

impl Place {
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
