//! A call at an endpoint: its start, its answer, and its end.
//!
//! A call is charged to its endpoint from the pick to its last byte. Its results feed two pure rules: the load, which
//! makes an endpoint dearer or cheaper, and outlier detection, which closes it. Whether an answer counts against its endpoint is
//! decided in `channel::classify` ([`Blame`]); a call that ends without an answer was given up by its caller, or timed out.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Connection, Endpoint,
    connection::handle::ConnectionHandle,
    outlier_detection::{CallSignal, OutlierState},
    service_state::ServiceState,
};

/// A deadline within this multiple of the typical latency was too short: missing it says nothing about the endpoint.
const FAIR_TIMEOUT: f64 = 2.0;

/// Whether the end of a call counts against its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nothing: it answered; also if the answer is an error of the caller's.
    None,
    /// It broke off, or reported that it is unable.
    Failed,
    /// It has no room, is leaving, or is another instance than expected. Others had better get the next calls, but that is
    /// no reason to eject it.
    Refused,
}

/// An endpoint that was picked for one call, and is charged for it until `call` is dropped.
pub(crate) struct Pick<C: Connection = ConnectionHandle> {
    pub(crate) connection: C,
    pub(crate) call: InFlight<C>,
}

/// What came of the attempt to take an endpoint for a call.
pub(crate) enum Acquired<C: Connection> {
    Taken(Pick<C>),
    /// It was given back: its share is smaller than the draw.
    Thinned,
    /// It takes no call now.
    Unavailable,
}

/// A call under way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<C: Connection = ConnectionHandle> {
    endpoint: Arc<Endpoint<C>>,
    begun: Instant,
    due: Option<Instant>,
    /// Its answer has begun, but is useless until more has come.
    awaits_message: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// An answer has begun, and is no failure so far.
    Answered,
    /// The endpoint failed or refused it.
    Over,
}

impl<C: Connection> Endpoint<C> {
    /// Takes it for a call. `accept` gets the weight and the time of the first connection, and may give it back.
    pub(crate) fn acquire(self: &Arc<Self>, now: Instant, accept: impl FnOnce(f64, Instant) -> bool) -> Acquired<C> {
        let mut state = self.state();
        let (Some(connection), Some(since), false) =
            (state.connection().cloned(), state.first_ready, state.is_paused(now))
        else {
            return Acquired::Unavailable;
        };
        if !accept(state.traits.relative_weight(), since) {
            return Acquired::Thinned;
        }
        if let OutlierState::Probation { .. } = state.outlier {
            if !self.service.in_panic() {
                if !state.outlier.admits(now) {
                    return Acquired::Unavailable;
                }
                // One probe at a time: the entry that led here is used up. The driver waits for the end of the probe.
                state.generation = self.service.next_generation();
                self.changed();
            }
            state.outlier.take_probe(now);
        }
        state.load.begin(now);
        state.calls += 1;
        drop(state);
        Acquired::Taken(Pick { connection, call: InFlight::begin(self.clone(), now) })
    }
}

impl<C: Connection> InFlight<C> {
    /// A call that `endpoint` has counted already.
    pub(super) fn begin(endpoint: Arc<Endpoint<C>>, begun: Instant) -> Self {
        Self { endpoint, begun, due: None, awaits_message: false, stage: Stage::Waiting }
    }

    /// The endpoint that has the call.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<C>> {
        &self.endpoint
    }

    /// When it must be answered: a call that ends without an answer before that was given up by its caller.
    pub(crate) fn due(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// The call is not sent here after all: it never counts.
    pub(crate) fn unsent(mut self) {
        debug_assert_eq!(self.stage, Stage::Waiting, "it has not been sent");
        let now = Instant::now();
        let mut state = self.endpoint.state();
        state.load.unsent();
        state.calls -= 1;
        let changed = state.signal(CallSignal::Nothing, self.begun, now, self.service());
        drop(state);
        self.stage = Stage::Over;
        self.tell(changed);
    }

    /// The response headers are here, or it is known that none will come.
    pub(crate) fn answered(&mut self, blame: Blame) {
        debug_assert_eq!(self.stage, Stage::Waiting, "an answer comes once");
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let mut state = self.endpoint.state();
        let signal = match blame {
            Blame::None => {
                state.load.served(now, took);
                if let Some(latency) = state.load.measured() {
                    self.service().note_first_answer(latency);
                }
                CallSignal::Answered
            }
            Blame::Failed => {
                state.load.failed(now);
                CallSignal::Failed { jitter: rand::random() }
            }
            Blame::Refused => {
                state.load.failed(now);
                CallSignal::Nothing
            }
        };
        let changed = state.signal(signal, self.begun, now, self.service());
        drop(state);
        self.stage = if blame == Blame::None { Stage::Answered } else { Stage::Over };
        self.tell(changed);
    }

    /// Whether the answer has begun and is of no use before more of it has come: until then it can time out as well.
    pub(crate) fn awaits_message(&mut self, awaits: bool) {
        self.awaits_message = awaits;
    }

    /// The answer ended as a failure, after headers that looked well.
    pub(crate) fn failed_late(&mut self) {
        if self.stage == Stage::Over {
            // The headers have said so.
            return;
        }
        let now = Instant::now();
        let mut state = self.endpoint.state();
        state.load.penalize(now);
        let failed = CallSignal::Failed { jitter: rand::random() };
        let changed = state.signal(failed, self.begun, now, self.service());
        drop(state);
        self.stage = Stage::Over;
        self.tell(changed);
    }

    fn service(&self) -> &ServiceState {
        &self.endpoint.service
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.endpoint.changed();
        }
    }

    /// Whether its deadline passed before an answer, although that left the endpoint enough time.
    fn has_timed_out(&self, now: Instant) -> bool {
        let took = now.saturating_duration_since(self.begun).as_secs_f64();
        self.due.is_some_and(|due| due <= now) && took >= FAIR_TIMEOUT * self.service().typical()
    }
}

impl<C: Connection> Drop for InFlight<C> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.endpoint.state();
        let timed_out = || CallSignal::Failed { jitter: rand::random() };
        let signal = match self.stage {
            Stage::Over => None,
            Stage::Answered if self.awaits_message && self.has_timed_out(now) => {
                state.load.penalize(now);
                Some(timed_out())
            }
            Stage::Answered if self.awaits_message => Some(CallSignal::Nothing),
            Stage::Answered => Some(CallSignal::Ended),
            Stage::Waiting => {
                let typical = self.service().typical();
                state.load.abandoned(now, now.saturating_duration_since(self.begun), typical);
                if self.has_timed_out(now) {
                    state.load.penalize(now);
                    Some(timed_out())
                } else {
                    Some(CallSignal::Nothing)
                }
            }
        };
        state.load.end();
        let changed = signal.is_some_and(|signal| state.signal(signal, self.begun, now, self.service()));
        drop(state);
        self.tell(changed);
    }
}
