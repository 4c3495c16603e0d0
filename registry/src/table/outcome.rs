//! The table's results.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use meshwork::contract::meshwork::registry::v1::{AuthorizationPolicy, Instance, Policy};

use super::{InstanceKey, LeaseId, Record, StoreConflict};
use crate::limits::{MAX_INSTANCES, MAX_SERVICES, grouped};

/// A lease as its holder sees it.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What renews, changes and ends it.
    pub lease_id: LeaseId,
    /// How long it lasts without a renewal.
    pub lease_ttl: Duration,
    /// The revision at which watchers see this state.
    pub revision: u64,
    /// The instance as it is now.
    pub record: Record,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lasts for another `lease_ttl` from now.
    Renewed,
    /// This instance has no holder now.
    Unknown,
    /// Another registration holds this instance.
    Fenced,
}

/// A bound that a registration would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// [`MAX_INSTANCES`].
    #[error("the registry is full ({} instances)", grouped(MAX_INSTANCES))]
    Instances,
    /// [`MAX_SERVICES`].
    #[error("the registry is full ({} services)", grouped(MAX_SERVICES))]
    Services,
}

/// Why an instance got no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// Its service is served from another store.
    #[error(transparent)]
    OtherStore(#[from] StoreConflict),
    /// An anonymous caller may not fence it.
    #[error(transparent)]
    Held(#[from] Held),
}

/// An instance is held under an identity, and an anonymous caller would replace or change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "anonymous may not replace or change instance {instance_id} of {service}, which is held under an identity: only \
     service/{service} and operators may"
)]
pub struct Held {
    /// Its service.
    pub service: String,
    /// Its id.
    pub instance_id: String,
}

impl Held {
    /// If it is held under an identity.
    pub(super) fn check(instance: &Instance) -> Result<(), Self> {
        let Instance { service, instance_id, identity, .. } = instance;
        if identity.is_empty() {
            return Ok(());
        }
        Err(Self { service: service.clone(), instance_id: instance_id.clone() })
    }
}

/// Why a status was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusNotSet {
    /// The lease is gone or fenced.
    #[error("the lease has ended, or was never granted")]
    UnknownLease,
    /// Meanwhile the service is served from another store.
    #[error(transparent)]
    OtherStore(#[from] StoreConflict),
}

/// One watched service, whole.
#[derive(Clone, Debug)]
pub struct ServiceSnapshot {
    /// Its name.
    pub service: Arc<str>,
    /// Whether an instance of it ever registered.
    pub known: bool,
    /// Its instances, by id.
    pub instances: Vec<Record>,
    /// Its policy, if one is set.
    pub policy: Option<Record<Policy>>,
    /// Its authorization policy, if one was set or deleted.
    pub authorization: Option<Record<AuthorizationPolicy>>,
}

/// What differs from an earlier revision: at most one entry for an instance, or for a policy of each
/// kind.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Joined or changed, as they are now.
    pub updated: Vec<Record>,
    /// Left, or their lease ran out.
    pub removed: Vec<InstanceKey>,
    /// Policies that changed, as they are now.
    pub policies: Vec<Record<Policy>>,
    /// Authorization policies that changed, as they are now.
    pub authorizations: Vec<Record<AuthorizationPolicy>>,
}

impl Delta {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let Self { updated, removed, policies, authorizations } = self;
        updated.is_empty() && removed.is_empty() && policies.is_empty() && authorizations.is_empty()
    }
}

/// Which watchers have something to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Those of these services.
    Services(BTreeSet<Arc<str>>),
    /// All: the grace period is over.
    All,
}

impl Default for Touched {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}
