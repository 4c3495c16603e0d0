//! What discovery knows of a service.

use std::{collections::BTreeMap, sync::Arc};

use crate::{contract::meshwork::registry::v1::Instance, policy::Policy};

/// The weight of an instance that says none, to which those of others are relative.
pub const DEFAULT_WEIGHT: u32 = 100;

/// The instances of a service, by id. Cheap to clone.
pub type Endpoints = Arc<BTreeMap<String, Arc<Instance>>>;

/// The instances of one service, and its policy, as the registries of a mesh have told of them.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSet {
    /// The service's name.
    pub service: Arc<str>,
    /// The revision of each registry, by its life (epoch), up to which all changes are in. Empty: no registry has spoken yet,
    /// and the endpoints, if there are any, are those of an earlier run.
    pub revisions: BTreeMap<Arc<str>, u64>,
    /// Whether anybody ever registered the service: known without endpoints is empty, not unknown.
    pub known: bool,
    /// All instances, whatever their status.
    pub endpoints: Endpoints,
    /// How clients are to treat them. The default while nobody has set one, or none is known yet.
    pub policy: Arc<Policy>,
}

impl EndpointSet {
    /// Nothing is known yet.
    pub(crate) fn unknown(service: &str) -> Self {
        Self {
            service: service.into(),
            revisions: BTreeMap::new(),
            known: false,
            endpoints: Endpoints::default(),
            policy: Arc::default(),
        }
    }

    /// Whether both have the same endpoints and policy; told cheaply, because what is unchanged is shared.
    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        let same_endpoints = Arc::ptr_eq(&self.endpoints, &other.endpoints) || self.endpoints == other.endpoints;
        same_endpoints && self.policy == other.policy
    }

    /// Whether the registry's revision `revision` of its life `epoch` is in.
    pub fn has_seen(&self, epoch: &str, revision: u64) -> bool {
        self.revisions.get(epoch).is_some_and(|seen| *seen >= revision)
    }

    /// Whether a registry has spoken.
    pub fn is_heard(&self) -> bool {
        !self.revisions.is_empty()
    }
}
