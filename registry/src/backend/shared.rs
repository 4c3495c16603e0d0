//! What the embedded backend and its watchers share.
//!
//! The table is behind a mutex that is held for one pure step at a time, never across an `await`.

use std::time::{Duration, SystemTime};

use meshwork::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{AuthorizationPolicy, Policy},
    identity::REGISTRY,
    log_limit::LogLimit,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::watch, time::Instant};

use super::wakers::Wakers;
use crate::{
    limits::MAX_LINES,
    policies::{AuthorizationChange, PolicyError, PolicyStore, Turn},
    table::Table,
};

#[derive(Debug)]
pub(super) struct Shared {
    epoch: String,
    start: Instant,
    table: Mutex<Table>,
    policies: PolicyStore,
    /// The rules of the registry itself.
    own_rules: watch::Sender<Knowledge>,
    wakers: Wakers,
    ran_out: LogLimit,
    conflicts: LogLimit,
}

impl Shared {
    /// A table of a new epoch, with nothing in it but the policies.
    pub(super) fn new(grace: Duration, policies: PolicyStore) -> Self {
        let mut table = Table::new(grace);
        policies.policies().into_iter().for_each(|policy| table.put_policy(policy));
        let own_rules = watch::Sender::new(Knowledge::NEVER_SET);
        for policy in policies.authorizations() {
            follow(&own_rules, &policy);
            table.put_authorization(policy);
        }
        Self {
            epoch: meshwork::id::new_id().to_string(),
            start: Instant::now(),
            table: Mutex::new(table),
            policies,
            own_rules,
            wakers: Wakers::default(),
            ran_out: LogLimit::new(MAX_LINES),
            conflicts: LogLimit::new(MAX_LINES),
        }
    }

    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The rules about who may call the registry.
    pub(super) fn own_rules(&self) -> watch::Receiver<Knowledge> {
        self.own_rules.subscribe()
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

    /// Makes one step, and wakes the watches that it concerns.
    pub(super) fn change<R>(&self, step: impl FnOnce(&mut Table, Duration) -> R) -> R {
        let (result, touched, expired, before, after) = {
            let mut table = self.table();
            // Read under the lock, so that the table sees time in order.
            let now = self.start.elapsed();
            let before = table.store_conflicts();
            let result = step(&mut table, now);
            (result, table.take_touched(), table.take_expired(), before, table.store_conflicts())
        };
        // Again and again while there are any: exporters drop a gauge that was not set for a while.
        if before != after || !after.is_empty() {
            metrics::gauge!("meshwork_registry_store_conflicts").set(after.len() as f64);
        }
        if before != after {
            for service in after.difference(&before) {
                if let Some(left_out) = self.conflicts.pass() {
                    tracing::warn!(
                        %service,
                        "instances of the service have different stores: see `meshwork instances`{left_out}"
                    );
                }
            }
        }
        self.wakers.wake(&touched);
        for (service, instance_id) in expired {
            if let Some(left_out) = self.ran_out.pass() {
                tracing::warn!(%service, %instance_id, "a lease ran out{left_out}");
            }
        }
        result
    }

    /// Sets a policy, and sends it to watchers once it is durable. Waits for the disk.
    pub(super) fn set_policy(&self, turn: &Turn, policy: Policy) -> Result<Policy, PolicyError> {
        let (policy, new) = turn.set_policy(policy, SystemTime::now())?;
        if new {
            self.change(|table, _| table.put_policy(policy.clone()));
        }
        Ok(policy)
    }

    /// The same for an authorization policy.
    pub(super) fn put_authorization(
        &self,
        turn: &Turn,
        policy: AuthorizationPolicy,
    ) -> Result<AuthorizationPolicy, PolicyError> {
        let AuthorizationChange { policy, forgotten } = turn.put_authorization(policy, SystemTime::now())?;
        self.change(|table, _| {
            forgotten.iter().for_each(|service| table.forget_authorization(service));
            table.put_authorization(policy.clone());
        });
        follow(&self.own_rules, &policy);
        Ok(policy)
    }
}

/// Takes on the rules of the registry itself, if these are.
fn follow(own_rules: &watch::Sender<Knowledge>, policy: &AuthorizationPolicy) {
    if policy.service == REGISTRY {
        // It was checked when it was set, or read.
        own_rules.send_replace(Knowledge::new(policy).unwrap_or_default());
    }
}
