//! Keeps one instance in the registry: one task that joins, renews, says how it is, and leaves.
//!
//! ```text
//!            ┌──────────── UNKNOWN (expired, or the registry restarted) ────────────┐
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

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming, body::Body, client::GrpcService};

use crate::{
    backoff::Backoff,
    contract::meshwork::registry::v1::{
        DeregisterRequest, Instance, InstanceStatus, KeepAliveRequest, KeepAliveResponse, Lease, LeaseState,
        RegisterRequest, SetStatusRequest, registry_service_client::RegistryServiceClient,
    },
};

/// For one answer of the registry. A third of the lease where that is less, so that a silent registry is noticed in time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// For the last call, and for the task to end: a lease that is not given back in time runs out by itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// Between attempts while the registry is away: it is back within 5 s of its return.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a registry client's transport must be.
pub(crate) trait Transport:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<BoxError>,
        ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<BoxError>,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

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
        let worker = Worker { registry, instance, lease_ttl, goal: goal_seen, announced, backoff: BACKOFF };
        Self { goal, announced: announced_seen, task: AbortOnDropHandle::new(tokio::spawn(worker.run())) }
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

/// How a lease was held.
enum Held {
    /// Until it was gone: register again.
    Lost,
    /// Until we left.
    Left,
}

struct Worker<T> {
    registry: RegistryServiceClient<T>,
    /// With the status that was registered last.
    instance: Instance,
    lease_ttl: Duration,
    goal: watch::Receiver<Goal>,
    announced: watch::Sender<Option<Announced>>,
    backoff: Backoff,
}

impl<T: Transport> Worker<T> {
    async fn run(mut self) -> Result<(), AnnounceError> {
        while let Some(lease) = self.join().await? {
            tracing::info!(service = self.instance.service, instance = self.instance.instance_id, "registered");
            match self.hold(lease).await? {
                Held::Lost => tracing::warn!("the registry does not know this instance any more: registering again"),
                Held::Left => break,
            }
        }
        Ok(())
    }

    /// Registers, however long it takes. `None`: told to leave before it succeeded.
    async fn join(&mut self) -> Result<Option<Lease>, AnnounceError> {
        let mut warned = false;
        loop {
            match *self.goal.borrow_and_update() {
                Goal::Absent => return Ok(None),
                Goal::Present(status) => self.instance.set_status(status),
            }
            match self.register().await {
                Ok(lease) => {
                    self.backoff.reset();
                    self.confirm(&lease);
                    return Ok(Some(lease));
                }
                Err(status) if status.code() == Code::InvalidArgument => return Err(self.refused(status)),
                Err(status) if warned => tracing::debug!(%status, "the registry is still away"),
                Err(status) => {
                    warned = true;
                    tracing::warn!(%status, "the registry is away: serving without it, and trying again");
                }
            }
            self.pause().await;
        }
    }

    async fn register(&mut self) -> Result<Lease, Status> {
        let lease_ttl = prost_types::Duration::try_from(self.lease_ttl).ok();
        let request = RegisterRequest { instance: Some(self.instance.clone()), lease_ttl };
        answer(ANSWER_LIMIT, self.registry.register(request)).await
    }

    /// Keeps a lease until it is gone or given back, over as many streams as it takes.
    async fn hold(&mut self, lease: Lease) -> Result<Held, AnnounceError> {
        let granted = lease.lease_ttl.and_then(|ttl| Duration::try_from(ttl).ok());
        let every = granted.unwrap_or(self.lease_ttl) / 3;
        let mut hold = Hold { lease_id: lease.lease_id, every, told: self.instance.status() };
        loop {
            match self.hold_on_a_stream(&mut hold).await? {
                Some(held) => return Ok(held),
                None => self.pause().await,
            }
        }
    }

    /// Renews on one stream. `None`: the stream ended, and with it nothing else.
    async fn hold_on_a_stream(&mut self, hold: &mut Hold) -> Result<Option<Held>, AnnounceError> {
        if *self.goal.borrow() == Goal::Absent {
            self.deregister(hold).await;
            return Ok(Some(Held::Left));
        }
        let Ok((renewals, mut answers)) = self.open_stream(hold).await else { return Ok(None) };
        // Renewed by opening; then at every third of the lease.
        let mut renewal = interval_at(Instant::now() + hold.every, hold.every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = true;
        loop {
            // Cancel-safe: `message` and `tick` lose nothing, and a goal that changed is read again below.
            tokio::select! {
                answer = answers.message() => match answer.ok().flatten().map(|answer| answer.state()) {
                    Some(LeaseState::Renewed) => {
                        unanswered = false;
                        self.backoff.reset();
                    }
                    Some(LeaseState::Fenced) => return Err(self.fenced()),
                    Some(LeaseState::Unknown | LeaseState::Unspecified) => return Ok(Some(Held::Lost)),
                    None => return Ok(None),
                },
                _ = renewal.tick() => {
                    if unanswered || renewals.try_send(hold.renewal()).is_err() {
                        return Ok(None);
                    }
                    unanswered = true;
                }
                // The sender lives in the handle, which stops this task when it goes.
                _ = self.goal.changed() => {}
            }
            let goal = *self.goal.borrow_and_update();
            match goal {
                Goal::Present(status) if status == hold.told => {}
                // Should it fail, then on the next stream, whose first renewal says whether the lease still stands.
                Goal::Present(status) => {
                    if self.tell(hold, status).await.is_err() {
                        return Ok(None);
                    }
                }
                Goal::Absent => {
                    self.deregister(hold).await;
                    return Ok(Some(Held::Left));
                }
            }
        }
    }

    /// Opens a stream with a renewal on it.
    async fn open_stream(
        &mut self,
        hold: &Hold,
    ) -> Result<(mpsc::Sender<KeepAliveRequest>, Streaming<KeepAliveResponse>), Status> {
        // One renewal at a time is under way.
        let (renewals, outgoing) = mpsc::channel(1);
        renewals.try_send(hold.renewal()).expect("an empty channel takes one");
        let answers = answer(hold.limit(), self.registry.keep_alive(ReceiverStream::new(outgoing))).await?;
        Ok((renewals, answers))
    }

    async fn tell(&mut self, hold: &mut Hold, status: InstanceStatus) -> Result<(), Status> {
        let request = SetStatusRequest { lease_id: hold.lease_id.clone(), status: status.into() };
        let lease = answer(hold.limit(), self.registry.set_status(request)).await?;
        hold.told = status;
        self.instance.set_status(status);
        self.confirm(&lease);
        Ok(())
    }

    async fn deregister(&mut self, hold: &Hold) {
        let request = DeregisterRequest { lease_id: hold.lease_id.clone() };
        if let Err(status) = answer(LEAVE_LIMIT, self.registry.deregister(request)).await {
            tracing::debug!(%status, "the lease was not given back");
        }
    }

    fn confirm(&self, lease: &Lease) {
        let announced =
            Announced { status: self.instance.status(), epoch: lease.epoch.clone(), revision: lease.revision };
        self.announced.send_replace(Some(announced));
    }

    /// Waits before the next attempt, or until there is another goal.
    async fn pause(&mut self) {
        let wait = self.backoff.next(rand::random());
        let goal = *self.goal.borrow();
        tokio::select! {
            () = sleep(wait) => {}
            _ = self.goal.wait_for(|now| *now != goal) => {}
        }
    }

    fn fenced(&self) -> AnnounceError {
        let Instance { service, instance_id, .. } = self.instance.clone();
        AnnounceError::Fenced { service, instance_id }
    }

    fn refused(&self, status: Status) -> AnnounceError {
        let Instance { service, instance_id, .. } = self.instance.clone();
        AnnounceError::Refused { service, instance_id, source: Box::new(status) }
    }
}

/// A lease that is being held.
struct Hold {
    lease_id: String,
    /// Between renewals.
    every: Duration,
    /// The status that the registry has.
    told: InstanceStatus,
}

impl Hold {
    fn renewal(&self) -> KeepAliveRequest {
        KeepAliveRequest { lease_id: self.lease_id.clone() }
    }

    /// For one answer.
    fn limit(&self) -> Duration {
        self.every.min(ANSWER_LIMIT)
    }
}

/// An answer of the registry, within a limit.
async fn answer<M>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<M>, Status>>,
) -> Result<M, Status> {
    let silent = |_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")));
    timeout(limit, call).await.unwrap_or_else(silent).map(tonic::Response::into_inner)
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
