//! Asks a second endpoint if the first is slow, and takes the answer that comes first (gRPC A6's hedging).
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
    call::{Answer, Call, Step},
    classify::{Verdict, verdict},
    error::CallError,
    layers::{budget::Budget, commit::unbroken, dispatch::Dispatch},
    link::Link,
    service_config::{Allowance, Method, Rules, Terms},
};
use crate::{balance::Pick, contract::meshwork::registry::v1::IdempotencyLevel};

/// When a call is slow whose method has never answered: nearly all methods with one response are faster, and a silent
/// endpoint can be met by the first call.
const UNKNOWN: Duration = Duration::from_millis(100);

/// Makes an attempt, at two endpoints if need be.
pub(crate) struct Hedge<S> {
    rules: Arc<Rules>,
    budget: Arc<Budget>,
    dispatch: Dispatch,
    inner: S,
}

impl<S> Hedge<S> {
    pub(crate) fn new(rules: Arc<Rules>, budget: Arc<Budget>, dispatch: Dispatch, inner: S) -> Self {
        Self { rules, budget, dispatch, inner }
    }

    /// Another endpoint for the call, which is paid for. `None`: there is none, or the call must not be at two.
    fn second(&self, call: &Call) -> Option<Pick<Link>> {
        // A second call at the same endpoint would only make it slower, and one that waits would wait twice.
        let pick = self.dispatch.other(call)?;
        // Asked for anew, behind the pick: endpoints that have come since the call began need not agree.
        let terms = self.rules.of(&call.path);
        if hedged(&terms, call).is_some() && self.budget.grants(call, &terms) {
            return Some(pick);
        }
        pick.call.unsent();
        None
    }
}

type Outcome = Result<Answer, CallError>;

impl<S: Step> Step for Hedge<S> {
    async fn call(&self, call: &Call) -> Outcome {
        let Some((method, patience)) = hedged(&call.terms, call) else { return self.inner.call(call).await };
        let begun = Instant::now();
        let mut first = pin!(self.inner.call(call));
        let outcome = match timeout(patience, &mut first).await {
            Ok(outcome) => outcome,
            Err(_) => self.race(call, first).await,
        };
        if outcome.is_ok() && verdict(&outcome) == Verdict::Final {
            // Also if the first has lost: it would have taken longer still.
            method.times.record(begun.elapsed());
        }
        outcome
    }
}

impl<S: Step> Hedge<S> {
    async fn race(&self, call: &Call, first: Pin<&mut impl Future<Output = Outcome>>) -> Outcome {
        let Some(Pick { link, gate, call: pending }) = self.second(call) else { return first.await };
        // In a box, so that calls that need no second attempt have no room for it. It is not sent to a third endpoint if the
        // second turns it away: the first has it still.
        let second = Box::pin(async move { unbroken(call, link.send(call, pending, &gate).await).await });
        match select(first, second).await {
            // While one is under way the other's failure is not the call's.
            Either::Left((outcome, second)) if verdict(&outcome) != Verdict::Final => {
                drop(outcome);
                second.await
            }
            Either::Right((outcome, first)) if verdict(&outcome) != Verdict::Final => {
                drop(outcome);
                first.await
            }
            Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
        }
    }
}

/// Whether a call may be at two endpoints at once on these terms, and after how long it should be.
fn hedged<'a>(terms: &'a Terms, call: &Call) -> Option<(&'a Method, Duration)> {
    let method = terms.method.as_deref()?;
    let shortest = terms.policy.retry.hedge_after?;
    let Allowance { level, unary } = method.allowance;
    let allowed = level == IdempotencyLevel::NoSideEffects && unary && call.body.is_whole();
    let patience = method.times.p95().unwrap_or(UNKNOWN).max(shortest);
    (allowed && terms.endpoints > 1).then_some((method, patience))
}
