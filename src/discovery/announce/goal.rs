//! What an announcing task works towards, and what comes of it.

use std::{sync::Arc, time::Duration};

use tonic::Status;

use crate::contract::meshwork::registry::v1::{Instance, InstanceStatus};

/// For the task to give back its lease and end: a lease that is not given back in time expires.
pub(super) const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Why an instance cannot be in the registry.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// Another process registered with our instance id.
    #[error("instance {instance_id} of {service} is fenced: another process has registered with its id")]
    Fenced {
        /// Our service.
        service: String,
        /// Our instance id.
        instance_id: String,
    },
    /// The registry does not accept the instance as it is.
    #[error("the registry refuses instance {instance_id} of {service}")]
    Refused {
        /// Our service.
        service: String,
        /// Our instance id.
        instance_id: String,
        /// The problem that it names.
        source: Box<Status>,
    },
}

/// What a server tells registries of itself.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// As clients are to know it.
    pub(crate) instance: Instance,
    /// The full names of its methods; empty: unknown.
    pub(crate) methods: Arc<[String]>,
    pub(crate) lease_ttl: Duration,
}

/// What the registry has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) status: InstanceStatus,
    /// The registry's life in which `revision` counts.
    pub(crate) epoch: String,
    /// Watchers that are this far know it.
    pub(crate) revision: u64,
}

/// What the task works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Present(InstanceStatus),
    Absent,
}
