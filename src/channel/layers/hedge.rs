//! Asks a second endpoint if the first is slow, and takes the answer that comes first (gRFC A6's hedging).
//!
//! ```text
//!   first ─────┬── answered ────────────────────────────────> the attempt's outcome
//!              │ slow, and there is credit                        ^
//!              └─> first and second ── the first good answer ─────┘   the other is cancelled at its server
//! ```
//!
//! Two servers may work on the call at once, so that only methods without side effects are hedged; and only those with one
//! response, because a stream that is quiet is not slow. A call is slow after the 95th percentile of its method's answers,
//! so that hedges are about a twentieth of the calls in good times; in bad ones the budget bounds them.
//!
//! The loser says nothing about failing, but its endpoint is known to be at least as slow as it has been.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::{Instant, timeout};

use crate::channel::{
    call::{Attempt, AttemptKind, Call, CallOutcome, Noted, Step},
    classify::Retryable,
    error::CallError,
    layers::budget::Budget,
    service_config::{CallConfig, MethodConfig, ServiceConfig},
};

/// When a call is slow whose method has never answered: nearly all methods with one response are faster, and a silent
/// endpoint can be met by the first call.
const UNKNOWN: Duration = Duration::from_millis(100);

/// Makes an attempt, at two endpoints if need be.
pub(crate) struct Hedge<S> {
    config: Arc<ServiceConfig>,
    budget: Arc<Budget>,
    inner: S,
}

impl<S> Hedge<S> {
    pub(crate) fn new(config: Arc<ServiceConfig>, budget: Arc<Budget>, inner: S) -> Self {
        Self { config, budget, inner }
    }
}

impl<S: Step> Step for Hedge<S> {
    async fn call(&self, call: &Call, attempt: Attempt<'_>) -> CallOutcome {
        let Some((method, patience)) = hedged(&call.config, call) else { return self.inner.call(call, attempt).await };
        let (begun, noted) = (Instant::now(), Noted::default());
        let attempt = Attempt { noted: Some(&noted), ..attempt };
        let mut first = pin!(self.inner.call(call, attempt));
        let outcome = match timeout(patience, &mut first).await {
            Ok(outcome) => outcome,
            Err(_) => self.race(call, attempt, first).await,
        };
        if outcome.result.is_ok() && is_final(&outcome) {
            // Also if the first has lost: it would have taken longer still.
            method.times.record(begun.elapsed());
        }
        outcome
    }
}

impl<S: Step> Hedge<S> {
    async fn race(
        &self,
        call: &Call,
        attempt: Attempt<'_>,
        first: Pin<&mut impl Future<Output = CallOutcome>>,
    ) -> CallOutcome {
        // A call that waits for an endpoint would wait twice.
        let Some(asked) = attempt.noted.and_then(Noted::get) else { return first.await };
        // Asked for anew: endpoints that have come since the call began need not agree.
        let config = self.config.of(&call.path);
        if hedged(&config, call).is_none() || !self.budget.grants(call, &config, attempt.number + 1) {
            return first.await;
        }
        // At another endpoint: a second call at the same one would only make it slower.
        let second = Attempt { kind: AttemptKind::Hedge, number: attempt.number + 1, avoid: Some(&asked), ..attempt };
        // In a box, so that calls that need no second attempt have no room for it.
        let second = Box::pin(self.inner.call(call, second));
        let outcome = match select(first, second).await {
            Either::Right((outcome, first)) if was_not_sent(&outcome) => {
                self.budget.refund();
                return first.await;
            }
            // While one is under way the other's failure is not the call's.
            Either::Left((first, second)) if !is_final(&first) => {
                let second = second.await;
                if was_not_sent(&second) {
                    self.budget.refund();
                    return first;
                }
                second
            }
            Either::Right((outcome, first)) if !is_final(&outcome) => {
                drop(outcome);
                first.await
            }
            Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
        };
        CallOutcome { hedges: outcome.hedges + 1, ..outcome }
    }
}

/// Whether it is an answer, or no further attempt could do better.
fn is_final(outcome: &CallOutcome) -> bool {
    outcome.verdict().retry == Retryable::No
}

fn was_not_sent(outcome: &CallOutcome) -> bool {
    matches!(outcome.result, Err(CallError::NoOther | CallError::Withdrawn { .. }))
}

/// Whether a call may be at two endpoints at once by that configuration, and after how long it should be.
fn hedged<'a>(config: &'a CallConfig, call: &Call) -> Option<(&'a MethodConfig, Duration)> {
    let method = config.hedged()?;
    let shortest = config.policy.retry.hedge_after?;
    let patience = method.times.p95().unwrap_or(UNKNOWN).max(shortest);
    (config.endpoints > 1 && call.body.is_whole()).then_some((method, patience))
}
