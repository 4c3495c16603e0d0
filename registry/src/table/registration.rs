//! Requests for a lease.

use std::{sync::Arc, time::Duration};

use meshwork::contract::meshwork::registry::v1::Instance;
use uuid::Uuid;

/// Names an instance: its service, and its id within it.
pub type InstanceKey = (Arc<str>, Arc<str>);

/// A process's call for a lease.
#[derive(Clone, Debug, Default)]
pub struct RegistrationAttempt {
    /// The process. Empty: unknown.
    pub holder: String,
    /// Counts its calls.
    pub number: u64,
    /// It was refused before because of its store, maybe by an earlier life of this registry.
    pub refused: bool,
}

impl RegistrationAttempt {
    /// Whether the same process has been answered as late as this, or later.
    pub(super) fn is_late(&self, answered: &RegistrationAttempt) -> bool {
        !self.holder.is_empty() && self.holder == answered.holder && self.number <= answered.number
    }
}

/// An instance that wants a lease.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The instance, already checked and complete.
    pub instance: Instance,
    /// The full names of the methods that it has told; empty: unknown.
    pub methods: Arc<[String]>,
    /// How long it stays without a renewal.
    pub lease_ttl: Duration,
    /// Which of its calls this is.
    pub attempt: RegistrationAttempt,
    /// Makes its lease id unlike any other, and secret: random, see [`LeaseId`](super::LeaseId).
    pub nonce: Uuid,
}
