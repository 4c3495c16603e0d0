//! Commits a call to an answer (gRFC A6): from there on no other attempt is made.
//!
//! The answer of a server that fails has its status in the headers, and needs no waiting. But a server may also end between
//! headers and message, or send headers before it knows the outcome. For a method with one response, headers alone are of no
//! use to a caller, so that waiting for the first frame delays nothing; a stream's headers go to its caller at once, because
//! its first message may be hours away.

use crate::channel::call::{Attempt, Call, CallOutcome, Step};

/// Reads the first frame of unary answers ahead, as part of the attempt: an answer that breaks off before is a failed attempt.
pub(crate) struct Commit<S> {
    inner: S,
}

impl<S> Commit<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Step> Step for Commit<S> {
    async fn call(&self, call: &Call, attempt: Attempt<'_>) -> CallOutcome {
        let CallOutcome { result, hedges, turned_away } = self.inner.call(call, attempt).await;
        let mut answer = match result {
            Ok(answer) => answer,
            Err(error) => return CallOutcome { result: Err(error), hedges, turned_away },
        };
        if call.config.is_unary()
            && let Err(error) = answer.body_mut().read_ahead().await
        {
            return CallOutcome { result: Err(error), hedges, turned_away };
        }
        answer.body_mut().commit(call.deadline);
        CallOutcome { result: Ok(answer), hedges, turned_away }
    }
}
