//! The task behind an [`Announcer`](super::Announcer): works towards the goal, and tells what it has reached.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::{
    Gate,
    goal::{AnnounceError, Announced, Goal, LEAVE_LIMIT, Registration},
};
use crate::{
    backoff::Backoff,
    contract::meshwork::registry::v1::{
        DeregisterRequest, Instance, InstanceStatus, KeepAliveRequest, KeepAliveResponse, Lease, LeaseState,
        RegisterRequest, SetStatusRequest, registry_service_client::RegistryServiceClient,
    },
    health::Conditioner,
    log_limit::LogLimit,
    rpc::{Transport, code_name},
};

/// For one answer of the registry. A third of the lease where that is less, so that a silent registry is noticed in time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between attempts while the registry is unreachable: it is found within 5 s of its return. And, counted apart, before another
/// registration when a lease is lost: the first comes after 100 ms at most, however long the registry was away. Only a
/// renewal shows that a lease stands, so that only a renewal begins either series again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Lines a minute on leases that come and go.
const MAX_LINES: u32 = 5;

/// Keeps an instance in the registry until the goal is to be absent.
pub(super) async fn run<T: Transport>(
    registry: RegistryServiceClient<T>,
    gate: Gate,
    registration: Registration,
    goal: watch::Receiver<Goal>,
    announced: watch::Sender<Option<Announced>>,
    admission: Conditioner,
) -> Result<(), AnnounceError> {
    let Registration { instance, methods, lease_ttl } = registration;
    let (holder, attempt) = (Uuid::new_v4().to_string(), 0);
    let (away, lost) = (BACKOFF, BACKOFF);
    let refused = false;
    Worker {
        registry,
        gate,
        instance,
        methods,
        lease_ttl,
        holder,
        attempt,
        goal,
        announced,
        admission,
        refused,
        away,
        lost,
    }
    .run()
    .await
}

/// How a lease was held.
enum Held {
    /// Until it was gone: register again.
    Lost,
    /// Until the registry did not let the instance serve: another store has come to be served. It may register later.
    NotAdmitted,
    /// Until we left.
    Left,
}

struct Worker<T> {
    registry: RegistryServiceClient<T>,
    gate: Gate,
    /// With the status that was registered last.
    instance: Instance,
    methods: Arc<[String]>,
    lease_ttl: Duration,
    /// Identifies this process's attempts to the registry: one that arrives late must not fence a later one.
    holder: String,
    attempt: u64,
    goal: watch::Receiver<Goal>,
    announced: watch::Sender<Option<Announced>>,
    /// Whether the registry takes the instance among its service's others.
    admission: Conditioner,
    /// It does not, as far as is known.
    refused: bool,
    /// The waits while the registry is unreachable.
    away: Backoff,
    /// The waits between leases that are lost.
    lost: Backoff,
}

impl<T: Transport> Worker<T> {
    async fn run(mut self) -> Result<(), AnnounceError> {
        // Another with the same id takes the lease away as often as this one registers.
        let (registered, lost) = (LogLimit::new(MAX_LINES), LogLimit::new(MAX_LINES));
        while let Some(lease) = self.join().await? {
            if let Some(left_out) = registered.pass() {
                let Instance { service, instance_id: instance, .. } = &self.instance;
                tracing::info!(service, instance, "registered{left_out}");
            }
            match self.hold(lease).await? {
                Held::Lost => {
                    self.announced.send_replace(None);
                    if let Some(left_out) = lost.pass() {
                        tracing::warn!("the registry no longer knows this instance: registering again{left_out}");
                    }
                    // Two registries without a common state behind one address would lose every lease at once.
                    let wait = self.lost.next(rand::random());
                    self.pause(wait).await;
                }
                Held::NotAdmitted => {
                    self.announced.send_replace(None);
                    self.pause_away().await;
                }
                Held::Left => break,
            }
        }
        Ok(())
    }

    /// Registers, however long it takes. `None`: asked to leave before it succeeded.
    async fn join(&mut self) -> Result<Option<Lease>, AnnounceError> {
        let mut warned = false;
        loop {
            let leaves = |goal: &Goal| *goal == Goal::Absent;
            // Both arms are cancel-safe.
            tokio::select! {
                () = self.gate.open() => {}
                _ = self.goal.wait_for(leaves) => return Ok(None),
            }
            match *self.goal.borrow_and_update() {
                Goal::Absent => return Ok(None),
                Goal::Present(status) => self.instance.set_status(status),
            }
            match self.register().await {
                Ok(lease) => {
                    self.gate.hold(&lease.epoch);
                    self.refused = false;
                    self.admission.set(Ok(()));
                    self.confirm(&lease);
                    return Ok(Some(lease));
                }
                Err(status) if status.code() == Code::InvalidArgument => return Err(self.refused(status)),
                Err(status) if status.code() == Code::FailedPrecondition => self.not_admitted(&status),
                Err(status) if warned => tracing::debug!(error = status.message(), "still not registered"),
                Err(status) => {
                    warned = true;
                    let (code, error) = (code_name(status.code()), status.message());
                    if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) {
                        tracing::warn!(error, "the registry is unreachable: serving without it and retrying");
                    } else {
                        tracing::error!(
                            code,
                            error,
                            "the registry refuses this instance, so clients cannot find it: retrying"
                        );
                    }
                }
            }
            self.pause_away().await;
        }
    }

    /// The registry is reachable but refuses the instance for now: another store is served for its service. That may
    /// change, by the others' end or an operator's word.
    fn not_admitted(&mut self, status: &Status) {
        self.refused = true;
        let problem = format!("the registry refuses this instance: {}", status.message());
        if self.admission.set(Err(problem.clone())) {
            tracing::error!(problem, "this instance is NOT_SERVING; retrying");
        }
    }

    async fn register(&mut self) -> Result<Lease, Status> {
        let lease_ttl = prost_types::Duration::try_from(self.lease_ttl).ok();
        self.attempt += 1;
        let (instance, holder) = (Some(self.instance.clone()), self.holder.clone());
        // A registry that has restarted cannot know it.
        let refused = self.refused;
        let methods = self.methods.to_vec();
        let request = RegisterRequest { instance, lease_ttl, holder, attempt: self.attempt, refused, methods };
        answer(ANSWER_LIMIT, self.registry.register(request)).await
    }

    /// Keeps a lease until it is gone or given back, over as many streams as it takes.
    async fn hold(&mut self, lease: Lease) -> Result<Held, AnnounceError> {
        let granted = lease.lease_ttl.and_then(|ttl| Duration::try_from(ttl).ok());
        let every = granted.unwrap_or(self.lease_ttl) / 3;
        let mut hold =
            Hold { lease_id: lease.lease_id, epoch: lease.epoch, every, told: self.instance.status(), confirmed: None };
        loop {
            match self.hold_on_a_stream(&mut hold).await? {
                Some(held) => return Ok(held),
                None => {
                    hold.confirmed = self.announced.send_replace(None).or(hold.confirmed);
                    self.pause_away().await;
                }
            }
        }
    }

    /// Renews on one stream. `None`: only the stream ended.
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
                        if let Some(confirmed) = hold.confirmed.take() {
                            self.announced.send_replace(Some(confirmed));
                        }
                        self.away.reset();
                        self.lost.reset();
                    }
                    Some(LeaseState::Fenced) if self.gate.was_taken_by_ourselves(&hold.epoch) => {
                        return Ok(Some(Held::Lost));
                    }
                    Some(LeaseState::Fenced) => return Err(self.fenced()),
                    Some(LeaseState::Unknown) => return Ok(Some(Held::Lost)),
                    // A state that we do not know says nothing about the lease: as if the stream had broken.
                    Some(LeaseState::Unspecified) | None => return Ok(None),
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
                Goal::Present(status) => match self.tell(hold, status).await {
                    Ok(()) => {}
                    Err(status) if status.code() == Code::FailedPrecondition => {
                        self.not_admitted(&status);
                        self.deregister(hold).await;
                        return Ok(Some(Held::NotAdmitted));
                    }
                    // Again on the next stream, whose first renewal says whether the lease still stands.
                    Err(_) => return Ok(None),
                },
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
        hold.confirmed = None;
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

    /// Waits before the next attempt at an unreachable registry.
    async fn pause_away(&mut self) {
        let wait = self.away.next(rand::random());
        self.pause(wait).await;
    }

    /// Waits, unless there is another goal first.
    async fn pause(&mut self, wait: Duration) {
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
    /// The registry's life that gave it.
    epoch: String,
    /// Between renewals.
    every: Duration,
    /// The status that the registry has.
    told: InstanceStatus,
    /// What it has confirmed, while it is unreachable.
    confirmed: Option<Announced>,
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
