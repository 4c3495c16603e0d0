//! The embedded backend: one table in this process, lost with it, and the policies, which may have a file.
//!
//! Leases come back after a restart because their holders register again, which is what the grace period is for.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use meshwork::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{AuthorizationPolicy, Binding, InstanceStatus, Policy, RefusedInstance},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep_until};

use super::{Backend, BackendError, Bound, Updates, shared::Shared, watcher::Watcher};
use crate::{
    policies::{Announced, Claims, Kind, PolicyError, PolicyStore, Turn, announced, with_announcers},
    table::{
        Granted, Held, InstanceKey, Interest, LeaseId, NotAdmitted, Record, Registration, Renewal, Resume, StatusNotSet,
    },
};

/// Leases in memory; clones share them.
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
}

impl Memory {
    /// A table of a new epoch, with nothing in it but the policies. Someone must run [`keep_time`](Self::keep_time).
    pub fn new(grace: Duration, policies: PolicyStore) -> Self {
        Self { shared: Arc::new(Shared::new(grace, policies)) }
    }

    /// The rules about who may call the registry.
    pub fn own_rules(&self) -> watch::Receiver<Knowledge> {
        self.shared.own_rules()
    }

    /// Ends leases and the grace period on time, for as long as it is polled.
    pub async fn keep_time(&self) -> std::convert::Infallible {
        loop {
            let next = self.shared.change(|table, now| {
                table.expire(now);
                table.next_expiry(now)
            });
            sleep_until(self.shared.at(next)).await;
        }
    }

    /// Makes a change to what is kept, after those before it. To its end, although the caller may be gone by then: what is durable
    /// must also be in the table.
    async fn in_turn<R: Send + 'static>(
        &self,
        kind: Kind,
        change: impl FnOnce(&Shared, &Turn) -> Result<R, PolicyError> + Send + 'static,
    ) -> Result<R, BackendError> {
        let (shared, turn) = (self.shared.clone(), self.shared.policies().turn().await);
        let changed = spawn_blocking(move || change(&shared, &turn)).await;
        Ok(changed.unwrap_or(Err(PolicyError::NotStored(kind)))?)
    }

    /// Which services announce each gRPC service now.
    fn announced(&self) -> Announced {
        let instances = self.shared.table().all_instances();
        announced(instances.iter().map(Record::instance))
    }
}

#[async_trait]
impl Backend for Memory {
    fn epoch(&self) -> &str {
        self.shared.epoch()
    }

    async fn register(&self, registration: Registration) -> Result<Granted, BackendError> {
        Ok(self.shared.change(|table, now| table.register(now, registration))?)
    }

    async fn held_under_identity(&self, lease: &LeaseId) -> Result<Option<Held>, BackendError> {
        Ok(self.shared.table().held_under_identity(lease))
    }

    async fn renew(&self, lease: &LeaseId) -> Result<Renewal, BackendError> {
        Ok(self.shared.change(|table, now| table.renew(now, lease)))
    }

    async fn deregister(&self, lease: &LeaseId) -> Result<bool, BackendError> {
        Ok(self.shared.change(|table, now| table.deregister(now, lease)))
    }

    async fn set_status(&self, lease: &LeaseId, status: InstanceStatus) -> Result<Granted, BackendError> {
        self.shared.change(|table, now| table.set_status(now, lease, status)).map_err(|error| match error {
            StatusNotSet::UnknownLease => BackendError::UnknownLease,
            StatusNotSet::OtherStore(conflict) => NotAdmitted::OtherStore(conflict).into(),
        })
    }

    async fn services(&self, after: Option<&str>, size: usize) -> Result<Vec<(Arc<str>, usize)>, BackendError> {
        Ok(self.shared.table().services(after, size))
    }

    async fn instances(&self, service: &str, after: Option<&str>, size: usize) -> Result<Vec<Record>, BackendError> {
        self.shared.table().instances(service, after, size).ok_or(BackendError::UnknownService)
    }

    async fn methods(&self, service: &str) -> Result<Vec<Arc<[String]>>, BackendError> {
        Ok(self.shared.table().methods(service))
    }

    async fn adopt(&self, service: &str, store_id: &str) -> Result<(Vec<InstanceKey>, Vec<InstanceKey>), BackendError> {
        self.shared.change(|table, now| table.adopt(now, service, store_id)).ok_or(BackendError::UnknownStore)
    }

    async fn refused(&self, service: &str) -> Result<Vec<RefusedInstance>, BackendError> {
        Ok(self.shared.table().refused(service))
    }

    async fn set_policy(&self, policy: Policy) -> Result<Policy, BackendError> {
        self.in_turn(Kind::Policy, move |shared, turn| shared.set_policy(turn, policy)).await
    }

    async fn policy(&self, service: &str) -> Result<Option<Record<Policy>>, BackendError> {
        Ok(self.shared.table().policy(service))
    }

    async fn policies(&self, after: Option<&str>, size: usize) -> Result<Vec<Record<Policy>>, BackendError> {
        Ok(self.shared.table().policies(after, size))
    }

    async fn put_authorization(&self, policy: AuthorizationPolicy) -> Result<AuthorizationPolicy, BackendError> {
        self.in_turn(Kind::Authorization, move |shared, turn| shared.put_authorization(turn, policy)).await
    }

    async fn authorization(&self, service: &str) -> Result<Option<Record<AuthorizationPolicy>>, BackendError> {
        Ok(self.shared.table().authorization(service))
    }

    async fn authorizations(
        &self,
        after: Option<&str>,
        size: usize,
    ) -> Result<Vec<Record<AuthorizationPolicy>>, BackendError> {
        Ok(self.shared.table().authorizations(after, size))
    }

    async fn bind(&self, service: &str, grpc_services: &[String]) -> Result<Bound, BackendError> {
        let Claims { new, of_others } = self.shared.policies().claims(service, grpc_services);
        if new.is_empty() {
            return Ok(Bound { new: Vec::new(), of_others });
        }
        let (service, names) = (service.to_owned(), grpc_services.to_vec());
        self.in_turn(Kind::Binding, move |shared, turn| {
            let new = turn.bind(&service, &names, SystemTime::now())?;
            // Some may have been bound while this waited for its turn.
            Ok(Bound { new, of_others: shared.policies().claims(&service, &names).of_others })
        })
        .await
    }

    async fn set_binding(&self, binding: Binding) -> Result<Binding, BackendError> {
        let set = move |_: &Shared, turn: &Turn| turn.set_binding(binding, SystemTime::now());
        Ok(with_announcers(self.in_turn(Kind::Binding, set).await?, &self.announced()))
    }

    async fn delete_binding(&self, grpc_service: &str) -> Result<bool, BackendError> {
        let name = grpc_service.to_owned();
        self.in_turn(Kind::Binding, move |_, turn| turn.delete_binding(&name)).await
    }

    async fn bindings(&self, after: Option<&str>, size: usize) -> Result<Vec<Binding>, BackendError> {
        Ok(self.shared.policies().bindings(&self.announced(), after, size))
    }

    fn watch(&self, interest: Interest, resume_from: Option<Resume>) -> Result<Updates, BackendError> {
        // A resume point of another epoch says nothing about this one.
        let seen = resume_from.filter(|resume| resume.epoch == self.shared.epoch()).map(|resume| resume.revision);
        Ok(Watcher::new(self.shared.clone(), interest, seen)?.into_updates())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use meshwork::contract::meshwork::registry::v1::Instance;
    use uuid::Uuid;

    use super::*;
    use crate::table::RegistrationAttempt;

    #[tokio::test]
    async fn an_instance_that_announces_nothing_new_waits_for_no_disk() {
        let memory = Memory::new(Duration::ZERO, PolicyStore::default());
        let names = ["shop.Order".to_owned(), "grpc.health.v1.Health".to_owned()];
        assert_eq!(memory.bind("order", &names).await.expect("there is room").new.len(), 1);
        // Another change is under way.
        let _turn = memory.shared.policies().turn().await;
        for (service, of_others) in [("order", 0), ("customer", 1)] {
            let bound = memory.bind(service, &names).now_or_never().expect("at once").expect("no error");
            assert_eq!((bound.new.len(), bound.of_others.len()), (0, of_others));
        }
    }

    #[tokio::test]
    async fn an_instance_that_joins_wakes_the_watchers_of_its_service_and_no_others() {
        let memory = Memory::new(Duration::ZERO, PolicyStore::default());
        let enter = |service| memory.shared.wakers().enter(&Interest::of([service])).expect("there is room").1;
        let (customer, order) = (enter("customer"), enter("order"));

        let instance = Instance { service: "order".into(), instance_id: "a".into(), ..Instance::default() };
        let registration = Registration {
            instance,
            methods: Arc::default(),
            lease_ttl: Duration::from_secs(10),
            attempt: RegistrationAttempt::default(),
            nonce: Uuid::new_v4(),
        };
        memory.register(registration).await.expect("there is room");

        let woken = [&customer, &order].map(|notify| notify.notified().now_or_never().is_some());
        assert_eq!(woken, [false, true]);
    }
}
