//! Keeps one instance in the registry: one task that joins, renews, says how it is, and leaves.
//!
//! ```text
//!            ┌──── UNKNOWN (expired, or the registry restarted), a pause ───────────┐
//!            v                                                                      │
//!   join ── Lease ──> hold: renew at ttl/3 on one stream, SetStatus when asked ─────┤
//!    │ ^                                                                            ├── FENCED ──> fails
//!    │ └── backoff, while the registry is unreachable                                └── leave ──> Deregister, ends
//!    └── INVALID_ARGUMENT ──> fails
//! ```
//!
//! The backoff is also for FAILED_PRECONDITION: another store is served for the service, and the instance is not well until
//! it is admitted.
//!
//! The task works towards a goal and tells what it has reached; no call waits for it. A lost stream is
//! opened again, and the first renewal on it says whether the lease still stands, so that a registration is repeated
//! exactly if it must be. It never registers again under an id that another process has taken.

mod gate;
mod goal;
mod worker;

pub(crate) use gate::Gate;
pub use goal::AnnounceError;
pub(crate) use goal::{Announced, Registration};

use futures_util::future::{BoxFuture, join_all, select_all};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use goal::{Goal, LEAVE_LIMIT};

use crate::{
    contract::meshwork::registry::v1::{InstanceStatus, registry_service_client::RegistryServiceClient},
    health::{Condition, Conditioner},
    rpc::Transport,
};

/// Ends when a watch of this process has come to what a registry has confirmed.
pub(crate) type Seen = Box<dyn Fn(Announced) -> BoxFuture<'static, ()> + Send + Sync>;

/// The announcing tasks of one instance, one for each registry. Dropped, all stop, and the leases run out.
pub(crate) struct Announcers(Vec<Announcer>);

impl Announcers {
    pub(crate) fn new(announcers: Vec<Announcer>) -> Self {
        Self(announcers)
    }

    /// A handle that sets the status from anywhere, without waiting.
    pub(crate) fn voice(&self) -> Voice {
        Voice(self.0.iter().map(|announcer| announcer.goal.clone()).collect())
    }

    /// Whether each registry admits the instance or is unreachable: none has refused it.
    pub(crate) fn admissions(&self) -> impl Iterator<Item = Condition> {
        self.0.iter().map(|announcer| announcer.admission.clone())
    }

    /// Changes the status, and hands what each registry has confirmed to `seen`, until that has ended for all; of several only
    /// for those that hold a lease, if there are any: the others have nothing to report.
    pub(crate) async fn set_status(&mut self, status: InstanceStatus, seen: &Seen) {
        let some_hold = self.0.iter().any(Announcer::holds);
        let mut told = Vec::new();
        for announcer in &mut self.0 {
            let (holds, confirmed) = (announcer.holds(), announcer.set_status(status));
            if holds || !some_hold {
                told.push(async move {
                    if let Some(announced) = confirmed.await {
                        seen(announced).await;
                    }
                });
            }
        }
        join_all(told).await;
    }

    /// Waits until the instance can no longer be in the registry. Not to be asked again after that.
    pub(crate) async fn failed(&mut self) -> AnnounceError {
        select_all(self.0.iter_mut().map(|announcer| Box::pin(announcer.failed()))).await.0
    }

    /// Leaves all registries, within a second.
    pub(crate) async fn leave(self) {
        join_all(self.0.into_iter().map(Announcer::leave)).await;
    }
}

/// Sets the status of an instance in all registries.
#[derive(Clone)]
pub(crate) struct Voice(Vec<watch::Sender<Goal>>);

impl Voice {
    /// Changes the status, unless the instance is about to leave.
    pub(crate) fn say(&self, status: InstanceStatus) {
        for goal in &self.0 {
            goal.send_if_modified(|goal| {
                let may = !matches!(goal, Goal::Absent | Goal::Present(InstanceStatus::Draining));
                let changed = may && *goal != Goal::Present(status);
                if changed {
                    *goal = Goal::Present(status);
                }
                changed
            });
        }
    }
}

/// A handle on the task; dropping it stops the task, and the lease runs out.
pub(crate) struct Announcer {
    goal: watch::Sender<Goal>,
    announced: watch::Receiver<Option<Announced>>,
    admission: Condition,
    task: AbortOnDropHandle<Result<(), AnnounceError>>,
}

impl Announcer {
    /// Starts to announce an instance with its status, where the gate lets it. Never waits for the registry.
    pub(crate) fn start<T: Transport>(
        registry: RegistryServiceClient<T>,
        gate: Gate,
        registration: Registration,
    ) -> Self {
        let (goal, goal_seen) = watch::channel(Goal::Present(registration.instance.status()));
        let (announced, announced_seen) = watch::channel(None);
        let conditioner = Conditioner::default();
        let admission = conditioner.condition();
        let work = worker::run(registry, gate, registration, goal_seen, announced, conditioner);
        Self { goal, announced: announced_seen, admission, task: AbortOnDropHandle::new(tokio::spawn(work)) }
    }

    /// Whether the registry is reachable and has granted a lease.
    fn holds(&self) -> bool {
        self.announced.borrow().is_some()
    }

    /// Changes the status, and waits, maybe for long, until the registry has confirmed it. `None`: it never will.
    pub(crate) fn set_status(&mut self, status: InstanceStatus) -> impl Future<Output = Option<Announced>> {
        self.goal.send_replace(Goal::Present(status));
        let confirmed = move |announced: &Option<Announced>| announced.as_ref().is_some_and(|a| a.status == status);
        async move { self.announced.wait_for(confirmed).await.ok()?.clone() }
    }

    /// Waits until the instance can no longer be in the registry. Not to be asked again after that.
    pub(crate) async fn failed(&mut self) -> AnnounceError {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            // The task ends well only when told to leave, which takes the handle; else it has been torn down.
            Ok(Ok(())) | Err(_) => std::future::pending().await,
        }
    }

    /// Leaves the registry, within a second.
    pub(crate) async fn leave(self) {
        self.goal.send_replace(Goal::Absent);
        if timeout(LEAVE_LIMIT, self.task).await.is_err() {
            tracing::warn!("the registry did not confirm that this instance left; its lease will expire");
        }
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
