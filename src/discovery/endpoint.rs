//! What discovery knows of a service.

use std::{collections::BTreeMap, sync::Arc};

use crate::{contract::meshwork::registry::v1::Instance, policy::Policy};

/// The weight of an instance that says none, to which those of others are relative.
pub const DEFAULT_WEIGHT: u32 = 100;

/// The instances of a service, by id. Cheap to clone.
pub type Endpoints = Arc<BTreeMap<String, Arc<Instance>>>;

/// The instances of one service, and its policy, as of one revision of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSet {
    /// The service's name.
    pub service: Arc<str>,
    /// The registry's life that `revision` belongs to. Empty: the registry has not spoken yet, and the endpoints, if there
    /// are any, are those of an earlier run.
    pub epoch: Arc<str>,
    /// All changes up to this revision are in.
    pub revision: u64,
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
            epoch: "".into(),
            revision: 0,
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
        &*self.epoch == epoch && self.revision >= revision
    }
}
