//! How many retries and hedges a channel may make: a share of its calls, plus a few per second.
//!
//! Retries help while some attempts fail, and multiply the load when all do. So every call earns a part of an attempt, and
//! every retry or hedge spends a whole one: if all fail, a server gets 20 % more calls, not
//! three times as many. Earned credit expires soon, or a good hour would pay for a storm.
//!
//! The rule ([`Credit`]) is pure: the clock is passed in.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    channel::{call::Call, metrics, service_config::CallConfig},
    policy::RetryPolicy,
};

/// How fast earnings are forgotten: two thirds after this long. Long enough that all calls under way on a connection that
/// breaks can be sent again, short enough that they are no store for a storm.
const MEMORY: Duration = Duration::from_secs(1);
/// For how long the attempts that come with time are kept: a client that has hardly made calls yet can send again what
/// is under way when a connection breaks, 30 calls by default.
const RESERVE: Duration = Duration::from_secs(3);

/// The budget of a channel.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The service that is called.
    service: Arc<str>,
    credit: Mutex<Credit>,
}

impl Budget {
    pub(crate) fn new(service: Arc<str>) -> Self {
        Self { service, credit: Mutex::new(Credit::new(Instant::now())) }
    }

    /// A call is made.
    pub(crate) fn earn(&self, policy: &RetryPolicy) {
        self.credit().earn(Instant::now(), policy);
    }

    /// Whether a call may be sent once more after `made` attempts: its method allows it, its body can be sent again, and there
    /// are attempts and credit left. If so the attempt is paid.
    pub(crate) fn grants(&self, call: &Call, config: &CallConfig, made: u32) -> bool {
        let policy = &config.policy.retry;
        if config.method.is_none() || !call.body.may_repeat() || made >= policy.max_attempts {
            return false;
        }
        let paid = self.credit().spend(Instant::now(), policy);
        if !paid {
            metrics::refused_by_budget(&self.service);
        }
        paid
    }

    /// An attempt that was paid is not made after all.
    pub(crate) fn refund(&self) {
        self.credit().earned += 1.0;
    }

    /// For how many attempts there is credit: as many as [`Self::grants`] would pay for now.
    pub(crate) fn left(&self, policy: &RetryPolicy) -> f64 {
        self.credit().left(Instant::now(), policy)
    }

    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock()
    }
}

/// Attempts that are paid for.
#[derive(Clone, Copy, Debug)]
struct Credit {
    /// By calls.
    earned: f64,
    /// By time: filled steadily, up to a bound.
    reserve: f64,
    /// When the two were last brought up to date.
    at: Instant,
}

impl Credit {
    /// A client that has just started may retry too.
    fn new(now: Instant) -> Self {
        Self { earned: 0.0, reserve: f64::INFINITY, at: now }
    }

    fn earn(&mut self, now: Instant, policy: &RetryPolicy) {
        self.pass(now, policy);
        self.earned += f64::from(policy.budget_percent) / 100.0;
    }

    /// Spends one attempt's credit, if there is enough.
    fn spend(&mut self, now: Instant, policy: &RetryPolicy) -> bool {
        self.pass(now, policy);
        let purse = if self.earned >= 1.0 { &mut self.earned } else { &mut self.reserve };
        let enough = *purse >= 1.0;
        if enough {
            *purse -= 1.0;
        }
        enough
    }

    fn left(&mut self, now: Instant, policy: &RetryPolicy) -> f64 {
        self.pass(now, policy);
        // They are not added up: a part of each is no attempt.
        self.earned.floor() + self.reserve.floor()
    }

    fn pass(&mut self, now: Instant, policy: &RetryPolicy) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let per_second = f64::from(policy.budget_min_per_second);
        self.earned *= (-passed / MEMORY.as_secs_f64()).exp();
        self.reserve = (self.reserve + passed * per_second).min(per_second * RESERVE.as_secs_f64());
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(budget_percent: u32, budget_min_per_second: u32) -> RetryPolicy {
        RetryPolicy { budget_percent, budget_min_per_second, ..RetryPolicy::default() }
    }

    fn spend_all(credit: &mut Credit, now: Instant, policy: &RetryPolicy) -> u32 {
        (0..).take_while(|_| credit.spend(now, policy)).count().try_into().expect("few")
    }

    #[test]
    fn a_fifth_of_the_calls_and_ten_per_second_may_be_sent_again() {
        let (policy, now) = (RetryPolicy::default(), Instant::now());
        let mut credit = Credit::new(now);
        assert_eq!(spend_all(&mut credit, now, &policy), 30, "also before the first call");
        for _ in 0..1000 {
            credit.earn(now, &policy);
        }
        assert!((199..=200).contains(&spend_all(&mut credit, now, &policy)));
        assert_eq!(spend_all(&mut credit, now + SECOND, &policy), 10);
        assert_eq!(spend_all(&mut credit, now + 3600 * SECOND, &policy), 30, "a quiet hour is no store");
    }

    #[test]
    fn what_was_earned_is_forgotten_within_seconds() {
        let (policy, now) = (policy(20, 0), Instant::now());
        let mut credit = Credit::new(now);
        for _ in 0..10_000 {
            credit.earn(now, &policy);
        }
        let left = spend_all(&mut credit, now + 5 * SECOND, &policy);
        assert!((10..20).contains(&left), "{left} of 2000");
    }

    #[test]
    fn a_budget_of_nothing_grants_nothing() {
        let (policy, now) = (policy(0, 0), Instant::now());
        let mut credit = Credit::new(now);
        credit.earn(now, &policy);
        assert!(!credit.spend(now + SECOND, &policy));
    }

    proptest! {
        /// However calls and failures are spread over time.
        #[test]
        fn no_more_is_spent_than_was_earned(
            percent in 0_u32..=100,
            per_second in 0_u32..=50,
            steps in prop::collection::vec((0_u64..400, 0_usize..20, 0_usize..40), 1..60),
        ) {
            let policy = policy(percent, per_second);
            let begin = Instant::now();
            let (mut now, mut credit) = (begin, Credit::new(begin));
            let (mut calls, mut spent) = (0_usize, 0_usize);
            for (wait_ms, earned, wanted) in steps {
                now += Duration::from_millis(wait_ms);
                (0..earned).for_each(|_| credit.earn(now, &policy));
                calls += earned;
                spent += (0..wanted).filter(|_| credit.spend(now, &policy)).count();
            }
            let time = now.saturating_duration_since(begin).as_secs_f64();
            let most = calls as f64 * f64::from(percent) / 100.0 + f64::from(per_second) * (time + RESERVE.as_secs_f64());
            prop_assert!(spent as f64 <= most + 1e-6, "{spent} of {most}");
        }
    }
}
