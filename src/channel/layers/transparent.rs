//! Sends a call again that no server has begun to process.
//!
//! That is safe for every method (gRFC A6 calls it transparent retry) and needs no budget, only bounds: one repetition of
//! a call that a server turned away, since that server or its connection may have too much to do, and a few of one that
//! never left or was misdirected. Any other retry needs an idempotent method and a budget, and is not made here (see `retry`).

use http::Response;

use crate::channel::{
    call::{Answer, Call, Step},
    error::{CallError, Failure},
};
use crate::headers::{REFUSED, Refusal};

/// Attempts at one call that nobody bore. Each goes where the balance sends it, which passes over who has just refused; when
/// this many were in vain, the service is not merely restarting. (gRFC A6 sets no bound to calls that never left.)
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
            let again = match unprocessed(&result) {
                Some(Unprocessed::Misdirected) => attempts < MAX_ATTEMPTS,
                // gRFC A6: of a call that reached a server there is one transparent retry, also over all other retries.
                Some(Unprocessed::TurnedAway) => attempts < MAX_ATTEMPTS && call.turned_away(),
                None => false,
            };
            if !again || !call.body.may_repeat() {
                return result;
            }
            attempts += 1;
        }
    }
}

/// Why it is certain that no server has begun with a call.
enum Unprocessed {
    /// It never left, or came to one who does not serve it (any more): that says nothing about the load.
    Misdirected,
    /// It came to a server that takes no more: to go on asking would multiply the load where there is too much.
    TurnedAway,
}

/// Whether it is certain that no server has begun with the call, and another may do better.
fn unprocessed(result: &Result<Answer, CallError>) -> Option<Unprocessed> {
    match result {
        Ok(answer) => match refusal(answer)? {
            Refusal::WrongInstance | Refusal::Draining | Refusal::NotAdmitted => Some(Unprocessed::Misdirected),
            Refusal::Overloaded => Some(Unprocessed::TurnedAway),
            Refusal::Expired => None,
        },
        Err(CallError::Endpoint(error)) => match error.failure {
            Failure::NeverSent => Some(Unprocessed::Misdirected),
            Failure::NotProcessed => Some(Unprocessed::TurnedAway),
            Failure::ConnectionLost | Failure::Reset(_) => None,
        },
        Err(
            CallError::NotReady(_)
            | CallError::QueueFull { .. }
            | CallError::Withdrawn { .. }
            | CallError::Closed { .. }
            | CallError::DeadlineExceeded { .. }
            | CallError::Request(_),
        ) => None,
    }
}

/// Why the server did not start the call, if it says so.
pub(crate) fn refusal<B>(answer: &Response<B>) -> Option<Refusal> {
    Refusal::parse(answer.headers().get(REFUSED)?.as_bytes())
}
