//! Whether an endpoint takes calls, by how its last ones went: ejection, a pure rule after gRFC A50.
//!
//! ```text
//!             failures in a row                   the time is over
//!   healthy ─────────────────────> ejected ────────────────────────────> on probation: one real call
//!      ^                              ^                                         │ │
//!      │                              └─── it failed: for twice the time ───────┘ │
//!      └───────────────────────────────── it was answered ────────────────────────┘
//! ```
//!
//! What began before an endpoint was ejected says nothing about how it is now. Whether an ejection is heeded is the set's
//! matter: see `plan`. The clock and the jitter are passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::{backoff::Backoff, policy::EjectionPolicy};

/// A probe that is not answered for so long makes room for another: it may be a call that takes its time, and whose caller
/// has all the time in the world.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a call tells about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum News {
    /// An answer has begun, and is no failure so far.
    Answered,
    /// The answer went well to its end, or as far as its caller cared.
    Ended,
    /// The endpoint is to blame. `jitter` is random in 0..1.
    Failed { jitter: f64 },
    /// The call is over and tells nothing: its caller gave it up, or the endpoint had no room for it.
    Nothing,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
pub(crate) enum Health {
    /// It takes calls; so many have failed since one went well.
    Healthy { failures: u32 },
    /// It takes none until then. `backoff` has the time after this one.
    Ejected { since: Instant, until: Instant, backoff: Backoff },
    /// It takes one call, which is under way since `probed`.
    Probation { since: Instant, probed: Option<Instant>, backoff: Backoff },
}

impl Health {
    /// That of an endpoint of which nothing bad is known.
    pub(crate) const GOOD: Self = Self::Healthy { failures: 0 };

    /// The state after news of a call that has `begun` then.
    #[must_use]
    pub(crate) fn after(self, news: News, begun: Instant, now: Instant, policy: &EjectionPolicy) -> Self {
        match (self, news) {
            (Self::Healthy { failures }, News::Failed { jitter }) => {
                let failures = failures.saturating_add(1);
                if failures < policy.consecutive_failures {
                    return Self::Healthy { failures };
                }
                Self::ejected(Backoff::new(policy.base_time, policy.max_time), now, jitter)
            }
            (Self::Healthy { .. }, News::Ended) => Self::GOOD,
            (healthy @ Self::Healthy { .. }, News::Answered | News::Nothing) => healthy,
            (ejected @ Self::Ejected { since, .. }, _) if begun <= since => ejected,
            (probation @ Self::Probation { since, .. }, _) if begun < since => probation,
            // An ejected endpoint has calls of this kind while ejections are not heeded.
            (Self::Ejected { .. } | Self::Probation { .. }, News::Answered | News::Ended) => Self::GOOD,
            (ejected @ Self::Ejected { .. }, News::Failed { .. } | News::Nothing) => ejected,
            (Self::Probation { backoff, .. }, News::Failed { jitter }) => Self::ejected(backoff, now, jitter),
            (Self::Probation { since, backoff, .. }, News::Nothing) => Self::Probation { since, probed: None, backoff },
        }
    }

    fn ejected(mut backoff: Backoff, now: Instant, jitter: f64) -> Self {
        let until = now + backoff.next(jitter);
        Self::Ejected { since: now, until, backoff }
    }

    /// Puts an endpoint whose time is over on probation, and says whether it did.
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
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        match self {
            Self::Healthy { .. } | Self::Ejected { .. } => None,
            Self::Probation { probed, .. } => probed.map(|begun| begun + PROBE_LIMIT),
        }
    }

    /// A call goes to it.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Self::Probation { probed, .. } = self {
            *probed = Some(now);
        }
    }

    /// Whether it takes calls without reserve.
    pub(crate) fn is_good(&self) -> bool {
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
        health: Health,
        now: Instant,
        policy: EjectionPolicy,
    }

    impl Trial {
        fn new() -> Self {
            Self { health: Health::GOOD, now: Instant::now(), policy: EjectionPolicy::default() }
        }

        fn admits(&self) -> bool {
            self.health.admits(self.now)
        }

        fn hear(&mut self, news: News) {
            self.hear_of(self.now, news);
        }

        fn hear_of(&mut self, begun: Instant, news: News) {
            self.health = self.health.clone().after(news, begun, self.now, &self.policy);
        }

        fn fail(&mut self) {
            self.hear(News::Failed { jitter: 0.0 });
        }

        fn ejected() -> Self {
            let mut trial = Self::new();
            (0..5).for_each(|_| trial.fail());
            assert!(!trial.admits());
            trial
        }

        /// Waits until it takes a call, which begins, and says how long that was.
        fn probe(&mut self) -> Duration {
            let Health::Ejected { until, .. } = self.health else { panic!("{:?}", self.health) };
            let waited = until - self.now;
            assert!(waited.is_zero() || !self.health.release(until - Duration::from_nanos(1)), "not before");
            self.now = until;
            assert!(self.health.release(until) && self.admits());
            self.health.begin(self.now);
            assert!(!self.admits(), "one at a time");
            waited
        }
    }

    #[test]
    fn the_fifth_failure_in_a_row_ejects_and_one_good_call_in_between_begins_the_count_again() {
        let mut trial = Trial::new();
        for _ in 0..2 {
            (0..4).for_each(|_| trial.fail());
            assert!(trial.health.is_good());
            trial.hear(News::Ended);
        }
        (0..4).for_each(|_| trial.fail());
        trial.hear(News::Answered);
        trial.hear(News::Nothing);
        assert!(trial.health.is_good(), "an answer that has only begun changes nothing");
        trial.fail();
        assert!(!trial.health.is_good());
    }

    #[test]
    fn each_failed_probation_doubles_the_time_up_to_a_minute_and_an_answer_ends_it() {
        let mut trial = Trial::ejected();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(trial.probe(), expected * SECOND);
            trial.fail();
        }
        trial.probe();
        trial.hear(News::Answered);
        assert!(trial.health.is_good());
        (0..5).for_each(|_| trial.fail());
        assert_eq!(trial.probe(), SECOND, "and all begins again");
    }

    #[test]
    fn a_probation_that_tells_nothing_gives_the_next_call_its_place() {
        let mut trial = Trial::ejected();
        trial.probe();
        trial.hear(News::Nothing);
        assert!(trial.admits() && !trial.health.is_good());
    }

    #[test]
    fn a_probation_that_takes_long_does_not_keep_others_from_asking() {
        let mut trial = Trial::ejected();
        trial.probe();
        trial.now += PROBE_LIMIT;
        assert!(trial.admits());
        trial.health.begin(trial.now);
        assert!(!trial.admits());
    }

    #[test]
    fn what_began_before_the_ejection_neither_ends_nor_prolongs_it() {
        let mut trial = Trial::ejected();
        let before = trial.now;
        trial.now += SECOND / 2;
        trial.hear_of(before, News::Answered);
        assert!(!trial.admits());
        trial.probe();
        for news in [News::Answered, News::Failed { jitter: 0.0 }, News::Nothing] {
            trial.hear_of(before, news);
            assert!(!trial.admits() && !trial.health.is_good(), "{news:?}");
        }
    }

    #[test]
    fn an_answer_to_a_call_that_an_ejected_endpoint_got_in_a_panic_ends_its_ejection() {
        let mut trial = Trial::ejected();
        trial.now += SECOND / 2;
        trial.fail();
        trial.hear(News::Answered);
        assert!(trial.health.is_good());
    }

    fn news() -> impl Strategy<Value = News> {
        prop_oneof![
            Just(News::Answered),
            Just(News::Ended),
            (0.0..1.0).prop_map(|jitter| News::Failed { jitter }),
            Just(News::Nothing)
        ]
    }

    proptest! {
        /// Whatever happens: nothing is ejected without so many failures in a row, no longer than the longest time, and
        /// everybody is asked again once that is over.
        #[test]
        fn an_endpoint_is_out_for_a_reason_and_never_for_good(
            events in prop::collection::vec((news(), 0..3000_u64, 0..6000_u64), 1..200),
            consecutive_failures in 1..8_u32,
        ) {
            let policy = EjectionPolicy { consecutive_failures, ..EjectionPolicy::default() };
            let mut trial = Trial { policy, ..Trial::new() };
            let start = trial.now;
            let mut failures = 0;
            for (news, after, age) in events {
                trial.now += Duration::from_millis(after);
                let was_good = trial.health.is_good();
                trial.health.release(trial.now);
                if trial.admits() {
                    trial.health.begin(trial.now);
                }
                trial.hear_of(start.max(trial.now - Duration::from_millis(age)), news);
                match news {
                    News::Failed { .. } => failures += 1,
                    News::Ended => failures = 0,
                    News::Answered | News::Nothing => {}
                }
                if was_good && !trial.health.is_good() {
                    prop_assert!(failures >= consecutive_failures);
                }
                if let Health::Ejected { until, .. } = trial.health {
                    prop_assert!(until - trial.now <= trial.policy.max_time);
                    let mut later = trial.health.clone();
                    prop_assert!(later.release(until) && later.admits(until));
                }
            }
        }
    }
}
