//! Where leases are kept, as the rpc service sees it: the seam for a store that several registries share.
//!
//! Every method is asynchronous and may fail, although the one implementation here, [`Memory`], needs neither.

mod memory;
mod shared;
mod wakers;
mod watcher;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
pub use memory::Memory;
use meshwork::contract::meshwork::registry::v1::{
    AuthorizationPolicy, Binding, InstanceStatus, Policy, RefusedInstance,
};
pub use watcher::PROGRESS_INTERVAL;

use crate::{
    limits::{MAX_WATCHES, grouped},
    policies::PolicyError,
    table::{
        Delta, Granted, Held, InstanceKey, Interest, LeaseId, NotAdmitted, Record, Registration, Renewal, Resume,
        ServiceSnapshot,
    },
};

/// Keeps the leases and the policies of one mesh.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The life that revisions belong to; unlike that of any other registry or restart.
    fn epoch(&self) -> &str;

    /// Gives an instance a lease, and fences the one it had.
    async fn register(&self, registration: Registration) -> Result<Granted, BackendError>;

    /// Whether a lease is in effect and held under an identity.
    async fn held_under_identity(&self, lease: &LeaseId) -> Result<Option<Held>, BackendError>;

    /// Renews a lease.
    async fn renew(&self, lease: &LeaseId) -> Result<Renewal, BackendError>;

    /// Ends a lease, and returns whether it did; one that is gone is not an error.
    async fn deregister(&self, lease: &LeaseId) -> Result<bool, BackendError>;

    /// Changes the status of a lease's instance.
    async fn set_status(&self, lease: &LeaseId, status: InstanceStatus) -> Result<Granted, BackendError>;

    /// Up to `size` services after `after`, by name, each with the number of its instances.
    async fn services(&self, after: Option<&str>, size: usize) -> Result<Vec<(Arc<str>, usize)>, BackendError>;

    /// Up to `size` instances of a service after the id `after`, by id.
    async fn instances(&self, service: &str, after: Option<&str>, size: usize) -> Result<Vec<Record>, BackendError>;

    /// Each list of methods that an instance of a service has told, at least once. An empty list says nothing.
    async fn methods(&self, service: &str) -> Result<Vec<Arc<[String]>>, BackendError>;

    /// Makes a store that of its service. Returns the instances that serve it, and those that have left because they do not.
    ///
    /// # Errors
    /// [`BackendError::UnknownStore`].
    async fn adopt(&self, service: &str, store_id: &str) -> Result<(Vec<InstanceKey>, Vec<InstanceKey>), BackendError>;

    /// The instances of a service that were refused lately because of their store.
    async fn refused(&self, service: &str) -> Result<Vec<RefusedInstance>, BackendError>;

    /// Sets a policy that was checked, and returns it as it is now. It is in effect when it is durable.
    async fn set_policy(&self, policy: Policy) -> Result<Policy, BackendError>;

    /// A service's policy, if one is set.
    async fn policy(&self, service: &str) -> Result<Option<Record<Policy>>, BackendError>;

    /// Up to `size` policies that are set, of the services after `after`, by service.
    async fn policies(&self, after: Option<&str>, size: usize) -> Result<Vec<Record<Policy>>, BackendError>;

    /// Sets an authorization policy that was checked, or deletes the one that is there if this one has no rules; returns it as it
    /// is now. It is in effect when it is durable.
    async fn put_authorization(&self, policy: AuthorizationPolicy) -> Result<AuthorizationPolicy, BackendError>;

    /// A service's authorization policy, if one was set or deleted.
    async fn authorization(&self, service: &str) -> Result<Option<Record<AuthorizationPolicy>>, BackendError>;

    /// Up to `size` authorization policies that have rules, of the services after `after`, by service.
    async fn authorizations(
        &self,
        after: Option<&str>,
        size: usize,
    ) -> Result<Vec<Record<AuthorizationPolicy>>, BackendError>;

    /// Binds the gRPC services of these that are bound to none to the service whose instance announces them. Returns what is bound
    /// now, and the bindings of those that belong to other services. It counts when it is durable.
    async fn bind(&self, service: &str, grpc_services: &[String]) -> Result<Bound, BackendError>;

    /// Sets a binding that was checked, for an operator, and returns it as it is now. It counts when it is durable.
    async fn set_binding(&self, binding: Binding) -> Result<Binding, BackendError>;

    /// Unbinds a gRPC service, and returns whether it was bound.
    async fn delete_binding(&self, grpc_service: &str) -> Result<bool, BackendError>;

    /// Up to `size` gRPC services after `after` that are bound, or that instances announce, by name.
    async fn bindings(&self, after: Option<&str>, size: usize) -> Result<Vec<Binding>, BackendError>;

    /// Streams the state of `interest`, as `RegistryService.Watch` has it. The stream has no end, and no queue: it looks
    /// at the latest state when it is polled.
    fn watch(&self, interest: Interest, resume_from: Option<Resume>) -> Result<Updates, BackendError>;
}

/// What has come of the gRPC services that an instance announces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bound {
    /// Bound to its service just now.
    pub new: Vec<Binding>,
    /// Bound to other services.
    pub of_others: Vec<Binding>,
}

/// The responses of one watch.
pub type Updates = BoxStream<'static, Update>;

/// One step of a watch.
#[derive(Clone, Debug)]
pub struct Update {
    /// All changes up to here have been sent.
    pub revision: u64,
    /// What is new.
    pub event: Event,
}

/// What is new for a watcher.
#[derive(Clone, Debug)]
pub enum Event {
    /// The whole state.
    Snapshot {
        /// The watched services.
        services: Vec<ServiceSnapshot>,
        /// Whether instances may still be coming back.
        provisional: bool,
    },
    /// What differs from the update before.
    Change(Delta),
    /// Nothing.
    Progress,
}

/// Why a backend did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No room for another instance or service, another store is served, or the instance is held under an identity.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// No room for another watch.
    #[error("the registry is full ({} watches)", grouped(MAX_WATCHES))]
    TooManyWatches,
    /// The lease has expired, was fenced, or never given.
    #[error("the lease has ended, or was never granted: register again")]
    UnknownLease,
    /// No instance of the service was ever registered.
    #[error("no instance of this service was ever registered")]
    UnknownService,
    /// No instance has the store that is to be adopted.
    #[error("no instance of this service has this store: start one (it is listed as refused) and try again")]
    UnknownStore,
    /// A policy or a binding was not set.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
