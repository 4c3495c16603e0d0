//! Whether an endpoint takes calls, by how its last ones went: ejection after failures in a row, as in Envoy's outlier
//! detection, for times as in gRFC A50. A pure rule.
//!
//! ```text
//!             failures in a row                   the time is over
//!   healthy ─────────────────────> ejected ────────────────────────────> on probation: one real call
//!      ^                              ^                                         │ │
//!      │                              └─── it failed: for twice the time ───────┘ │
//!      └───────────────────────────────── it was answered ────────────────────────┘
//! ```
//!
//! A call that began before an ejection says nothing about the endpoint's state now. Whether an ejection takes effect depends on the
//! set: see `plan`. The clock and the jitter are passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::{backoff::Backoff, policy::EjectionPolicy};

/// A probe that takes longer makes room for another: it may be a call that takes its time, and whose caller has no deadline.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a call shows about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallSignal {
    /// An answer has begun, and is no failure so far.
    Answered,
    /// The answer went well to its end, or as far as its caller cared.
    Ended,
    /// The endpoint is to blame. `jitter` is random in 0..1.
    Failed { jitter: f64 },
    /// The call is over and shows nothing: its caller gave it up, or the endpoint had no room for it.
    Nothing,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
pub(crate) enum OutlierState {
    /// It takes calls; `failures` have failed in a row.
    Healthy { failures: u32 },
    /// It takes none until then. `backoff` has the time after this one.
    Ejected { since: Instant, until: Instant, backoff: Backoff },
    /// It takes one call, which is under way since `probed`.
    Probation { since: Instant, probed: Option<Instant>, backoff: Backoff },
}

impl OutlierState {
    /// The state of an endpoint without known failures.
    pub(crate) const HEALTHY: Self = Self::Healthy { failures: 0 };

    /// The state after news of a call that has `begun` then.
    #[must_use]
    pub(crate) fn on_signal(self, signal: CallSignal, begun: Instant, now: Instant, policy: &EjectionPolicy) -> Self {
        match (self, signal) {
            (Self::Healthy { failures }, CallSignal::Failed { jitter }) => {
                let failures = failures.saturating_add(1);
                if failures < policy.consecutive_failures {
                    return Self::Healthy { failures };
                }
                Self::ejected(Backoff::new(policy.base_time, policy.max_time), now, jitter)
            }
            (Self::Healthy { .. }, CallSignal::Ended) => Self::HEALTHY,
            (healthy @ Self::Healthy { .. }, CallSignal::Answered | CallSignal::Nothing) => healthy,
            (ejected @ Self::Ejected { since, .. }, _) if begun <= since => ejected,
            (probation @ Self::Probation { since, .. }, _) if begun < since => probation,
            // An ejected endpoint has calls of this kind while ejections are not heeded.
            (Self::Ejected { .. } | Self::Probation { .. }, CallSignal::Answered | CallSignal::Ended) => Self::HEALTHY,
            (ejected @ Self::Ejected { .. }, CallSignal::Failed { .. } | CallSignal::Nothing) => ejected,
            (Self::Probation { backoff, .. }, CallSignal::Failed { jitter }) => Self::ejected(backoff, now, jitter),
            // Of the probe itself: another call may be the probe by now.
            (Self::Probation { since, probed, backoff }, CallSignal::Nothing) => {
                Self::Probation { since, probed: probed.filter(|probed| *probed != begun), backoff }
            }
        }
    }

    fn ejected(mut backoff: Backoff, now: Instant, jitter: f64) -> Self {
        let until = now + backoff.next(jitter);
        Self::Ejected { since: now, until, backoff }
    }

    /// Puts an endpoint whose time is over on probation. Returns whether it did.
    pub(crate) fn release(&mut self, now: Instant) -> bool {
        let Self::Ejected { until, backoff, .. } = self else { return false };
        let over = *until <= now;
        if over {
            *self = Self::Probation { since: now, probed: None, backoff: backoff.clone() };
        }
        over
    }

    /// Whether it takes a call now.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        match self {
            Self::Healthy { .. } => true,
            Self::Ejected { .. } => false,
            Self::Probation { probed, .. } => {
                probed.is_none_or(|begun| now.saturating_duration_since(begun) >= PROBE_LIMIT)
            }
        }
    }

    /// When it takes a call although its probe has not ended.
    pub(crate) fn probe_times_out(&self) -> Option<Instant> {
        match self {
            Self::Healthy { .. } | Self::Ejected { .. } => None,
            Self::Probation { probed, .. } => probed.map(|begun| begun + PROBE_LIMIT),
        }
    }

    /// A call goes to it.
    pub(crate) fn take_probe(&mut self, now: Instant) {
        if let Self::Probation { probed, .. } = self {
            *probed = Some(now);
        }
    }

    /// Whether it takes calls without reserve.
    pub(crate) fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A rule under a clock that is moved by hand, and calls that take no time.
    struct Trial {
        state: OutlierState,
        now: Instant,
        policy: EjectionPolicy,
    }

    impl Trial {
        fn new() -> Self {
            Self { state: OutlierState::HEALTHY, now: Instant::now(), policy: EjectionPolicy::default() }
        }

        fn admits(&self) -> bool {
            self.state.admits(self.now)
        }

        fn on_now(&mut self, signal: CallSignal) {
            self.on(self.now, signal);
        }

        fn on(&mut self, begun: Instant, signal: CallSignal) {
            self.state = self.state.clone().on_signal(signal, begun, self.now, &self.policy);
        }

        fn fail(&mut self) {
            self.on_now(CallSignal::Failed { jitter: 0.0 });
        }

        fn ejected() -> Self {
            let mut trial = Self::new();
            (0..5).for_each(|_| trial.fail());
            assert!(!trial.admits());
            trial
        }

        /// Waits until it takes a call, which begins, and says how long that was.
        fn probe(&mut self) -> Duration {
            let OutlierState::Ejected { until, .. } = self.state else { panic!("{:?}", self.state) };
            let waited = until - self.now;
            assert!(waited.is_zero() || !self.state.release(until - Duration::from_nanos(1)), "not before");
            self.now = until;
            assert!(self.state.release(until) && self.admits());
            self.state.take_probe(self.now);
            assert!(!self.admits(), "one at a time");
            waited
        }
    }

    #[test]
    fn the_fifth_failure_in_a_row_ejects_and_one_good_call_in_between_begins_the_count_again() {
        let mut trial = Trial::new();
        for _ in 0..2 {
            (0..4).for_each(|_| trial.fail());
            assert!(trial.state.is_healthy());
            trial.on_now(CallSignal::Ended);
        }
        (0..4).for_each(|_| trial.fail());
        trial.on_now(CallSignal::Answered);
        trial.on_now(CallSignal::Nothing);
        assert!(trial.state.is_healthy(), "an answer that has only begun changes nothing");
        trial.fail();
        assert!(!trial.state.is_healthy());
    }

    #[test]
    fn each_failed_probation_doubles_the_time_up_to_a_minute_and_an_answer_ends_it() {
        let mut trial = Trial::ejected();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(trial.probe(), expected * SECOND);
            trial.fail();
        }
        trial.probe();
        trial.on_now(CallSignal::Answered);
        assert!(trial.state.is_healthy());
        (0..5).for_each(|_| trial.fail());
        assert_eq!(trial.probe(), SECOND, "and all begins again");
    }

    #[test]
    fn a_probation_that_tells_nothing_gives_the_next_call_its_place() {
        let mut trial = Trial::ejected();
        trial.probe();
        trial.on_now(CallSignal::Nothing);
        assert!(trial.admits() && !trial.state.is_healthy());
    }

    #[test]
    fn a_probe_that_ends_late_makes_no_room_beside_the_one_that_followed_it() {
        let mut trial = Trial::ejected();
        trial.probe();
        let first = trial.now;
        trial.now += PROBE_LIMIT;
        trial.state.take_probe(trial.now);
        trial.on(first, CallSignal::Nothing);
        assert!(!trial.admits(), "one at a time");
        trial.on_now(CallSignal::Nothing);
        assert!(trial.admits());
    }

    #[test]
    fn a_probation_that_takes_long_does_not_keep_others_from_asking() {
        let mut trial = Trial::ejected();
        trial.probe();
        trial.now += PROBE_LIMIT;
        assert!(trial.admits());
        trial.state.take_probe(trial.now);
        assert!(!trial.admits());
    }

    #[test]
    fn what_began_before_the_ejection_neither_ends_nor_prolongs_it() {
        let mut trial = Trial::ejected();
        let before = trial.now;
        trial.now += SECOND / 2;
        trial.on(before, CallSignal::Answered);
        assert!(!trial.admits());
        trial.probe();
        for signal in [CallSignal::Answered, CallSignal::Failed { jitter: 0.0 }, CallSignal::Nothing] {
            trial.on(before, signal);
            assert!(!trial.admits() && !trial.state.is_healthy(), "{signal:?}");
        }
    }

    #[test]
    fn an_answer_to_a_call_that_an_ejected_endpoint_got_in_a_panic_ends_its_ejection() {
        let mut trial = Trial::ejected();
        trial.now += SECOND / 2;
        trial.fail();
        trial.on_now(CallSignal::Answered);
        assert!(trial.state.is_healthy());
    }

    fn signal() -> impl Strategy<Value = CallSignal> {
        prop_oneof![
            Just(CallSignal::Answered),
            Just(CallSignal::Ended),
            (0.0..1.0).prop_map(|jitter| CallSignal::Failed { jitter }),
            Just(CallSignal::Nothing)
        ]
    }

    proptest! {
        /// Whatever happens: an endpoint is ejected only after that many failures in a row, for the longest time at most, and is
        /// asked again once that is over.
        #[test]
        fn an_endpoint_is_out_for_a_reason_and_never_for_good(
            events in prop::collection::vec((signal(), 0..3000_u64, 0..6000_u64), 1..200),
            consecutive_failures in 1..8_u32,
        ) {
            let policy = EjectionPolicy { consecutive_failures, ..EjectionPolicy::default() };
            let mut trial = Trial { policy, ..Trial::new() };
            let start = trial.now;
            let mut failures = 0;
            for (signal, after, age) in events {
                trial.now += Duration::from_millis(after);
                let was_healthy = trial.state.is_healthy();
                trial.state.release(trial.now);
                if trial.admits() {
                    trial.state.take_probe(trial.now);
                }
                trial.on(start.max(trial.now - Duration::from_millis(age)), signal);
                match signal {
                    CallSignal::Failed { .. } => failures += 1,
                    CallSignal::Ended => failures = 0,
                    CallSignal::Answered | CallSignal::Nothing => {}
                }
                if was_healthy && !trial.state.is_healthy() {
                    prop_assert!(failures >= consecutive_failures);
                }
                if let OutlierState::Ejected { until, .. } = trial.state {
                    prop_assert!(until - trial.now <= trial.policy.max_time);
                    let mut later = trial.state.clone();
                    prop_assert!(later.release(until) && later.admits(until));
                }
            }
        }
    }
}
