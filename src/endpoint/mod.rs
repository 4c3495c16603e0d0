//! THE endpoint: everything that a client knows of one instance of a service, behind one lock.
//!
//! ```text
//!                connected                  the connection ends
//!   CONNECTING ─────────────> READY ─────────────────────────────> TRANSIENT_FAILURE
//!                               ^                                        │
//!                               └──────────────── connected ─────────────┘
//! ```
//!
//! - **Connectivity**, in gRPC's terms without IDLE: an endpoint is connected for as long as it is in use. READY is real: the
//!   server has sent its SETTINGS on that connection.
//! - **Outlier state** ([`OutlierState`]) and **load** ([`Load`]): two pure rules, fed by the calls of the endpoint.
//! - **Generation**: names the endpoint in a pool of the balance. It moves with each connection and with each probe that is
//!   taken, so that an entry of an earlier generation can fail for good and be left behind (see `balance::pool`).
//!
//! All of it outlives connections and pools: an endpoint that returns with an empty record would look idle, and be flooded.

pub(crate) mod connection;
pub(crate) mod in_flight;
pub(crate) mod load;
pub(crate) mod outlier_detection;
pub(crate) mod peer;
pub(crate) mod service_state;
pub(crate) mod stats;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::instance::DEFAULT_WEIGHT;
use connection::{
    handle::ConnectionHandle,
    keepalive::{Keepalive, PingRecord},
};
use load::Load;
use outlier_detection::{CallSignal, OutlierState};
use peer::Peer;
use stats::{CallStats, EndpointState, EndpointStats};

pub(crate) use connection::Connection;
pub(crate) use in_flight::{Acquired, Blame, InFlight, Pick};
pub(crate) use service_state::ServiceState;

/// A pause of this length and more takes an endpoint out of its pool. A shorter one is only a reason to draw another.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// The parts of a registry's entry that matter to the balance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// 0: the default.
    pub(crate) weight: u32,
    pub(crate) version: String,
    pub(crate) zone: String,
    /// It takes PINGs at any time.
    pub(crate) takes_pings: bool,
    /// It has registered under an identity once, and so takes TLS.
    pub(crate) has_identity: bool,
}

impl Traits {
    /// The weight, relative to the default one.
    pub(crate) fn relative_weight(&self) -> f64 {
        let weight = if self.weight == 0 { DEFAULT_WEIGHT } else { self.weight };
        f64::from(weight) / f64::from(DEFAULT_WEIGHT)
    }
}

/// One endpoint, shared by the task that keeps it connected, the balance, and its calls.
pub(crate) struct Endpoint<C: Connection = ConnectionHandle> {
    /// Unlike that of any other endpoint of its channel.
    id: u64,
    /// Which instance it is, and where; the first of several fixed addresses.
    peer: Peer,
    service: Arc<ServiceState>,
    /// It has changed since the driver looked last.
    dirty: AtomicBool,
    /// It has answered as Meshwork's servers do, which take PINGs at any time.
    is_meshwork: AtomicBool,
    state: Mutex<State<C>>,
}

struct State<C: Connection> {
    traits: Arc<Traits>,
    connectivity: Connectivity<C>,
    /// When it had a connection for the first time.
    first_ready: Option<Instant>,
    paused_until: Option<Instant>,
    /// The end of a pause that was long when it began. It stays a long one while it runs out: the plan says when
    /// such an endpoint is back.
    long_pause_until: Option<Instant>,
    generation: u64,
    outlier: OutlierState,
    load: Load,
    pings: PingRecord,
    calls: u64,
    failures: u64,
    ejections: u64,
}

enum Connectivity<C: Connection> {
    Connecting,
    Ready(C),
    /// With the reason.
    TransientFailure(String),
}

/// An endpoint as a plan is made with it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) generation: u64,
    /// That of `traits`, relative to the usual one: every plan reads it of all, and not what is behind that pointer.
    pub(crate) weight: f64,
    pub(crate) traits: Arc<Traits>,
    /// When it had its first connection, if it has one now.
    pub(crate) ready_since: Option<Instant>,
    pub(crate) outlier: OutlierState,
    /// The end of a pause that is long enough to matter to a plan.
    pub(crate) paused_until: Option<Instant>,
}

impl Candidate {
    /// Whether this state ends only with an event, not with time.
    pub(crate) fn is_settled(&self) -> bool {
        self.outlier.is_healthy() && self.paused_until.is_none()
    }
}

impl<C: Connection> Endpoint<C> {
    /// An endpoint without a connection.
    pub(crate) fn new(id: u64, peer: Peer, traits: Traits, service: Arc<ServiceState>) -> Self {
        let state = State {
            traits: Arc::new(traits),
            connectivity: Connectivity::Connecting,
            first_ready: None,
            paused_until: None,
            long_pause_until: None,
            generation: service.next_generation(),
            outlier: OutlierState::HEALTHY,
            load: Load::new(Instant::now()),
            pings: PingRecord::default(),
            calls: 0,
            failures: 0,
            ejections: 0,
        };
        let (dirty, is_meshwork) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { id, peer, service, dirty, is_meshwork, state: Mutex::new(state) }
    }

    /// What it is, at its first address.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes calls on a new connection from now on.
    pub(crate) fn connected(&self, connection: C) {
        let mut state = self.state();
        state.first_ready = state.first_ready.or_else(|| Some(Instant::now()));
        (state.paused_until, state.long_pause_until) = (None, None);
        state.connectivity = Connectivity::Ready(connection);
        state.generation = self.service.next_generation();
        drop(state);
        self.changed();
    }

    /// Takes no more calls, because of `why`. Those under way are not touched.
    pub(crate) fn disconnected(&self, why: String) {
        let lost = {
            let mut state = self.state();
            let before = std::mem::replace(&mut state.connectivity, Connectivity::TransientFailure(why));
            matches!(before, Connectivity::Ready(_))
        };
        if lost {
            self.changed();
        }
    }

    /// Takes no calls for a time: it has refused one, and the others had better go elsewhere.
    pub(crate) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(Some(until));
        if time >= LONG_PAUSE {
            state.long_pause_until = state.long_pause_until.max(Some(until));
            drop(state);
            self.changed();
        }
    }

    /// Applies the registry's latest entry.
    pub(crate) fn set_traits(&self, traits: Traits) {
        let mut state = self.state();
        if *state.traits != traits {
            state.traits = Arc::new(traits);
            drop(state);
            self.changed();
        }
    }

    /// It has answered as Meshwork's servers do.
    pub(crate) fn saw_meshwork(&self) {
        // Every answer says it: only the first one writes what all cores read.
        if !self.is_meshwork.load(Ordering::Relaxed) {
            self.is_meshwork.store(true, Ordering::Relaxed);
        }
    }

    /// How its next connection is pinged.
    pub(crate) fn keepalive(&self) -> Keepalive {
        let state = self.state();
        state.pings.keepalive(state.traits.takes_pings || self.is_meshwork.load(Ordering::Relaxed))
    }

    /// Whether it takes TLS, as far as that is known.
    pub(crate) fn has_identity(&self) -> bool {
        self.state().traits.has_identity
    }

    /// It has ended a connection because it was pinged too often: the next ones are pinged less.
    pub(crate) fn complained_about_pings(&self, keepalive: Keepalive) {
        let slowed = {
            let mut state = self.state();
            let before = state.pings;
            let slowed = state.pings.complained(keepalive);
            (before == PingRecord::default()).then_some(slowed)
        };
        if let Some(Keepalive { interval, .. }) = slowed {
            tracing::warn!(
                endpoint = %self.peer,
                ?interval,
                "the server closed the connection for too many PINGs (too_many_pings); pinging it less often from now on"
            );
        }
    }

    /// The driver must look at it again.
    pub(crate) fn changed(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.service.endpoint_changed(self.id);
        }
    }

    /// The driver's view of it: its state for a plan. An ejection whose time is over becomes probation here.
    pub(crate) fn look(&self, now: Instant) -> Candidate {
        // First: what changes from here on is looked at once more.
        self.dirty.store(false, Ordering::Release);
        let mut state = self.state();
        if state.outlier.release(now) {
            // What made it fail may be over: it is asked once, as one of which nothing is known.
            state.load.restart(now);
        }
        Candidate {
            generation: state.generation,
            weight: state.traits.relative_weight(),
            traits: state.traits.clone(),
            ready_since: state.connection().and(state.first_ready),
            outlier: state.outlier.clone(),
            paused_until: state.long_pause_until.filter(|until| *until > now),
        }
    }

    /// The end of its pause.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.state().paused_until
    }

    /// Whether an entry of that generation can still be used. Once it cannot, it never can again.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        let state = self.state();
        state.generation == generation && state.connection().is_some()
    }

    /// The load that a call would meet here, if it takes calls. `share` gets the time of the first connection, and says
    /// which part of the weight counts.
    pub(crate) fn load(&self, now: Instant, share: impl FnOnce(Instant) -> f64) -> Option<f64> {
        let state = self.state();
        if state.is_paused(now) {
            return None;
        }
        let weight = state.traits.relative_weight() * share(state.first_ready?);
        Some(state.load.value(now, self.service.typical(), weight))
    }

    /// Average seconds to response headers, as they came.
    pub(crate) fn measured(&self) -> Option<f64> {
        self.state().load.measured()
    }

    /// How it stands, for people.
    pub(crate) fn stats(&self, now: Instant) -> EndpointStats {
        let state = self.state();
        let calls = CallStats {
            load: state.load.value(now, self.service.typical(), state.traits.relative_weight()),
            latency: state.load.measured().map(Duration::from_secs_f64),
            pending: state.load.pending(),
            calls: state.calls,
            failures: state.failures,
            ejections: state.ejections,
        };
        let Traits { weight, version, zone, .. } = (*state.traits).clone();
        EndpointStats {
            instance_id: self.peer.instance().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
            address: self.peer.address().to_string(),
            version,
            zone,
            weight,
            state: state.told(now),
            stream_limit: state.connection().and_then(Connection::stream_limit),
            certificate_expires: state.connection().and_then(Connection::certificate_expires),
            calls,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock()
    }
}

impl<C: Connection> State<C> {
    /// The connection, if it takes calls. It may have ended before its owner has noticed.
    fn connection(&self) -> Option<&C> {
        match &self.connectivity {
            Connectivity::Ready(connection) => Some(connection).filter(|connection| !connection.is_closed()),
            Connectivity::Connecting | Connectivity::TransientFailure(_) => None,
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// Takes in what a call says about the endpoint. Returns whether that changes which endpoints may be picked.
    fn signal(&mut self, signal: CallSignal, begun: Instant, now: Instant, service: &ServiceState) -> bool {
        if let CallSignal::Failed { .. } = signal {
            self.failures += 1;
        } else if matches!(self.outlier, OutlierState::Healthy { failures: 0 }) {
            // Nearly every call.
            return false;
        }
        let (was_healthy, was_open) = (self.outlier.is_healthy(), self.outlier.admits(now));
        let outlier = std::mem::replace(&mut self.outlier, OutlierState::HEALTHY);
        let was_ejected = matches!(outlier, OutlierState::Ejected { .. });
        self.outlier = outlier.on_signal(signal, begun, now, &service.ejection());
        let is_ejected = matches!(self.outlier, OutlierState::Ejected { .. });
        self.ejections += u64::from(is_ejected && !was_ejected);
        // Also if a probe has made room for the next one: a call may wait for it.
        was_healthy != self.outlier.is_healthy() || was_ejected != is_ejected || was_open != self.outlier.admits(now)
    }

    /// The state to show to people: without a connection, the outlier state does not matter.
    fn told(&self, now: Instant) -> EndpointState {
        match (&self.connectivity, &self.outlier) {
            (Connectivity::Connecting, _) => EndpointState::Connecting,
            (Connectivity::TransientFailure(why), _) => EndpointState::TransientFailure { why: why.clone() },
            (Connectivity::Ready(_), OutlierState::Healthy { .. }) => EndpointState::Ready,
            (Connectivity::Ready(_), OutlierState::Ejected { until, .. }) => {
                EndpointState::Ejected { time_left: until.saturating_duration_since(now) }
            }
            (Connectivity::Ready(_), OutlierState::Probation { .. }) => EndpointState::Probation,
        }
    }
}

/// As errors name it, with what is wrong with its connection.
impl<C: Connection> fmt::Display for Endpoint<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state().connectivity {
            Connectivity::Connecting => write!(f, "{} (connecting)", self.peer),
            Connectivity::Ready(_) => write!(f, "{} (connected, takes no calls)", self.peer),
            Connectivity::TransientFailure(why) => write!(f, "{} ({why})", self.peer),
        }
    }
}

impl<C: Connection> fmt::Debug for Endpoint<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.peer, f)
    }
}
