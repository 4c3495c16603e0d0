//! Sends a call again that no server has begun to process.
//!
//! That is safe for every method (gRFC A6 calls it transparent retry) and needs no budget, only bounds: one repetition of
//! a call that a server turned away, since that server or its connection may have too much to do, and a few of one that
//! never left or was misdirected. Any other retry needs an idempotent method and a budget, and is not made here (see `retry`).

use crate::channel::{
    call::{Attempt, AttemptKind, Call, CallOutcome, Step},
    classify::Unprocessed,
};

/// Transparent retries in the place of one attempt. Each goes where the balance sends it, which passes over the endpoint that has
/// just refused; when this many were in vain, the service is not merely restarting. (gRFC A6 sets no bound to calls that
/// never left.)
const MAX_RETRIES: u32 = 4;

/// Repeats calls that never left, or were refused before processing.
pub(crate) struct Transparent<S> {
    inner: S,
}

impl<S> Transparent<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Step> Step for Transparent<S> {
    async fn call(&self, call: &Call, first: Attempt<'_>) -> CallOutcome {
        let (mut transparent_retries, mut turned_away) = (0, first.turned_away);
        let mut refused = None;
        loop {
            let avoid = refused.as_ref().or(first.avoid);
            let attempt = Attempt { avoid, turned_away, transparent_retries, ..first };
            let outcome = self.inner.call(call, attempt).await;
            let again = match outcome.verdict().unprocessed {
                // The first attempt has the call still.
                _ if first.kind == AttemptKind::Hedge => false,
                Some(Unprocessed::Misdirected) => transparent_retries < MAX_RETRIES,
                // gRFC A6: of a call that reached a server there is one transparent retry, also over all other retries.
                Some(Unprocessed::TurnedAway) => {
                    transparent_retries < MAX_RETRIES && !std::mem::replace(&mut turned_away, true)
                }
                None => false,
            };
            if !again || !call.body.may_repeat() {
                return CallOutcome { turned_away, ..outcome };
            }
            transparent_retries += 1;
            refused = outcome.endpoint().cloned();
        }
    }
}
