//! Keeps one instance in the registry: one task that joins, renews, says how it is, and leaves.
//!
//! ```text
//!            ┌──── UNKNOWN (expired, or the registry restarted), a pause ───────────┐
//!            v                                                                      │
//!   join ── Lease ──> hold: renew at ttl/3 on one stream, SetStatus when asked ─────┤
//!    │ ^                                                                            ├── FENCED ──> fails
//!    │ └── backoff, for as long as the registry is away                             └── leave ──> Deregister, ends
//!    └── INVALID_ARGUMENT ──> fails
//! ```
//!
//! The task works towards a goal and tells what it has reached; nobody waits for it unless he asks. A lost stream is
//! opened again, and the first renewal on it says whether the lease still stands, so that a registration is repeated
//! exactly if it must be. It never registers again under an id that somebody else has taken.

mod worker;

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::{
    contract::meshwork::registry::v1::{Instance, InstanceStatus, registry_service_client::RegistryServiceClient},
    rpc::Transport,
};

/// For the task to give back its lease and end: a lease that is not given back in time runs out by itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

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
        /// What it says is wrong.
        source: Box<Status>,
    },
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Present(InstanceStatus),
    Absent,
}

/// A handle on the task; dropping it stops the task, and the lease runs out.
pub(crate) struct Announcer {
    goal: watch::Sender<Goal>,
    announced: watch::Receiver<Option<Announced>>,
    task: AbortOnDropHandle<Result<(), AnnounceError>>,
}

impl Announcer {
    /// Starts to announce `instance` with its status. Never waits for the registry.
    pub(crate) fn start<T: Transport>(
        registry: RegistryServiceClient<T>,
        instance: Instance,
        lease_ttl: Duration,
    ) -> Self {
        let (goal, goal_seen) = watch::channel(Goal::Present(instance.status()));
        let (announced, announced_seen) = watch::channel(None);
        let work = worker::run(registry, instance, lease_ttl, goal_seen, announced);
        Self { goal, announced: announced_seen, task: AbortOnDropHandle::new(tokio::spawn(work)) }
    }

    /// Changes the status, and waits, maybe for long, until the registry has confirmed it. `None`: it never will.
    pub(crate) async fn set_status(&mut self, status: InstanceStatus) -> Option<Announced> {
        self.goal.send_replace(Goal::Present(status));
        let confirmed = |announced: &Option<Announced>| announced.as_ref().is_some_and(|a| a.status == status);
        self.announced.wait_for(confirmed).await.ok()?.clone()
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
            tracing::warn!("the registry did not confirm that this instance left; its lease will run out");
        }
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
