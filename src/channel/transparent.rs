//! Sends a call again that no server has begun to process.
//!
//! That is safe for every method (gRFC A6 calls it transparent retry) and costs nobody work, so that it needs no budget,
//! only a bound. Any other retry needs an idempotent method and a budget, and is not made here.

use http::Response;

use super::{
    call::{Answer, Call, Step},
    error::CallError,
};
use crate::headers::{REFUSED, Refusal};

/// Attempts at one call. Each goes where the balance sends it, which passes over who has just refused; when this many have
/// refused, the service is not merely restarting.
const MAX_ATTEMPTS: u32 = 5;

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
    async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let mut attempts = 1;
        loop {
            let result = self.inner.call(call).await;
            if attempts == MAX_ATTEMPTS || !is_unprocessed(&result) || !call.body.may_repeat() {
                call.body.settle();
                return result;
            }
            attempts += 1;
        }
    }
}

/// Whether it is certain that no server has begun with the call, and another may do better.
fn is_unprocessed(result: &Result<Answer, CallError>) -> bool {
    match result {
        Ok(answer) => refusal(answer).is_some_and(Refusal::may_go_elsewhere),
        Err(CallError::Endpoint(error)) => error.failure.is_unprocessed(),
        Err(
            CallError::NotReady(_)
            | CallError::QueueFull { .. }
            | CallError::Closed { .. }
            | CallError::DeadlineExceeded { .. }
            | CallError::Request(_),
        ) => false,
    }
}

/// Why the server did not start the call, if it says so.
pub(super) fn refusal<B>(answer: &Response<B>) -> Option<Refusal> {
    Refusal::parse(answer.headers().get(REFUSED)?.as_bytes())
}
