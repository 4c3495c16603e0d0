//! Sends a call again that failed and whose method says that twice is as good as once (gRPC A6).
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
//! its answer as long as its deadline says, because nobody knows how far the server is.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::channel::{
    call::{Answer, Call, Step},
    classify::{Verdict, verdict},
    error::CallError,
    layers::budget::Budget,
    service_config::Rules,
};

/// Repeats calls that failed and may be repeated.
pub(crate) struct Retry<S> {
    rules: Arc<Rules>,
    budget: Arc<Budget>,
    inner: S,
}

impl<S> Retry<S> {
    pub(crate) fn new(rules: Arc<Rules>, budget: Arc<Budget>, inner: S) -> Self {
        Self { rules, budget, inner }
    }

    /// How long to wait for another attempt. `None`: there is none.
    fn wait(&self, call: &Call, result: &Result<Answer, CallError>, backoff: &mut Backoff) -> Option<Duration> {
        let wait = match verdict(result) {
            Verdict::Final => return None,
            Verdict::Again => backoff.next(rand::random()),
            Verdict::AgainAfter(wait) => {
                backoff.reset();
                wait
            }
        };
        // The failure says more than a DEADLINE_EXCEEDED in its place.
        let in_time = call.answer_by.is_none_or(|limit| wait < limit.remaining());
        // Asked for anew: the first calls of a channel begin before its endpoints are known.
        (in_time && self.budget.grants(call, &self.rules.of(&call.path))).then_some(wait)
    }
}

impl<S: Step> Step for Retry<S> {
    async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let policy = &call.terms.policy.retry;
        self.budget.earn(policy);
        let mut backoff = Backoff::new(policy.backoff_min, policy.backoff_max);
        loop {
            let result = self.inner.call(call).await;
            let Some(wait) = self.wait(call, &result, &mut backoff) else {
                call.body.settle();
                return result;
            };
            // What is left of the attempt must not count as pending meanwhile.
            drop(result);
            sleep(wait).await;
        }
    }
}
