//! What the embedded backend and its watchers share.
//!
//! The table is behind a mutex that is held for one pure step at a time, never across an `await`.

use std::time::{Duration, SystemTime};

use meshwork::contract::meshwork::registry::v1::Policy;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::wakers::Wakers;
use crate::{
    policies::{PolicyError, PolicyStore, Turn},
    table::Table,
};

#[derive(Debug)]
pub(super) struct Shared {
    epoch: String,
    start: Instant,
    table: Mutex<Table>,
    policies: PolicyStore,
    wakers: Wakers,
}

impl Shared {
    /// A table of a new epoch, with nothing in it but the policies.
    pub(super) fn new(grace: Duration, policies: PolicyStore) -> Self {
        let mut table = Table::new(grace);
        policies.all().into_iter().for_each(|policy| table.put_policy(policy));
        Self {
            epoch: Uuid::now_v7().to_string(),
            start: Instant::now(),
            table: Mutex::new(table),
            policies,
            wakers: Wakers::default(),
        }
    }

    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// When it is `time` by the table.
    pub(super) fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    pub(super) fn policies(&self) -> &PolicyStore {
        &self.policies
    }

    pub(super) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Makes one step, and wakes those whom it concerns.
    pub(super) fn change<R>(&self, step: impl FnOnce(&mut Table, Duration) -> R) -> R {
        let (result, touched, expired, before, after) = {
            let mut table = self.table();
            // Read under the lock, so that the table sees time in order.
            let now = self.start.elapsed();
            let before = table.store_conflicts();
            let result = step(&mut table, now);
            (result, table.take_touched(), table.take_expired(), before, table.store_conflicts())
        };
        if before != after {
            metrics::gauge!("meshwork_registry_store_conflicts").set(after.len() as f64);
            for service in after.difference(&before) {
                tracing::warn!(%service, "instances of the service have different stores: see `meshwork instances`");
            }
        }
        self.wakers.wake(&touched);
        for (service, instance_id) in expired {
            tracing::warn!(%service, %instance_id, "a lease ran out");
        }
        result
    }

    /// Sets a policy, and sends it to watchers once it is durable. Waits for the disk.
    pub(super) fn set_policy(&self, turn: &Turn, policy: Policy) -> Result<Policy, PolicyError> {
        let (policy, new) = turn.set(policy, SystemTime::now())?;
        if new {
            self.change(|table, _| table.put_policy(policy.clone()));
        }
        Ok(policy)
    }
}
