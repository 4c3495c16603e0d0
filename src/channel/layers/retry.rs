//! Retries failed calls of idempotent methods (gRFC A6).
//!
//! ```text
//!   attempt ── an answer, or a failure that is final ──────────────────────────> the call's outcome
//!     ^   │                                                                        ^
//!     │   └── worth another ── method, body, attempts, time and budget allow it ── or not
//!     │                                  │
//!     └──────────── backoff, or as long as the server says
//! ```
//!
//! At most three attempts by default, never after the first message of an answer, and never beyond the deadline. A silent
//! server is not the matter here: of a method without side effects a hedge asks another one, and any other call waits for
//! its answer as long as its deadline says, because it is not known how far the server is.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    backoff::Backoff,
    channel::{
        call::{Attempt, AttemptKind, Call, CallOutcome, Step},
        classify::Retryable,
        layers::budget::Budget,
        service_config::ServiceConfig,
    },
};

/// Repeats calls that failed and may be repeated.
pub(crate) struct Retry<S> {
    config: Arc<ServiceConfig>,
    budget: Arc<Budget>,
    inner: S,
}

impl<S> Retry<S> {
    pub(crate) fn new(config: Arc<ServiceConfig>, budget: Arc<Budget>, inner: S) -> Self {
        Self { config, budget, inner }
    }

    /// How long to wait for another attempt after `made` ones. `None`: there is none.
    fn wait(&self, call: &Call, made: u32, outcome: &CallOutcome, backoff: &mut Backoff) -> Option<Duration> {
        let wait = match outcome.verdict().retry {
            Retryable::No => return None,
            Retryable::Backoff => backoff.next(rand::random()),
            Retryable::After(wait) => {
                backoff.reset();
                wait
            }
        };
        // The failure says more than a DEADLINE_EXCEEDED in its place.
        let in_time = call.answer_by.is_none_or(|limit| wait < limit.remaining());
        // Asked for anew: the first calls of a channel begin before its endpoints are known.
        (in_time && self.budget.grants(call, &self.config.of(&call.path), made)).then_some(wait)
    }
}

impl<S: Step> Step for Retry<S> {
    async fn call(&self, call: &Call, first: Attempt<'_>) -> CallOutcome {
        let policy = &call.config.policy.retry;
        self.budget.earn(policy);
        let mut backoff = Backoff::new(policy.backoff_min, policy.backoff_max);
        let (mut kind, mut number, mut turned_away) = (first.kind, first.number, first.turned_away);
        let mut failed = None;
        loop {
            // The endpoint that has had the call already is the last to get it again.
            let avoid = failed.as_ref().or(first.avoid);
            let attempt = Attempt { kind, number, avoid, turned_away, ..first };
            let outcome = self.inner.call(call, attempt).await;
            number += 1 + outcome.hedges;
            turned_away |= outcome.turned_away;
            let Some(wait) = self.wait(call, number, &outcome, &mut backoff) else {
                call.body.settle();
                return outcome;
            };
            failed = outcome.endpoint().cloned().or(failed);
            // What is left of the attempt must not count as pending meanwhile.
            drop(outcome);
            sleep(wait).await;
            kind = AttemptKind::Retry;
        }
    }
}
