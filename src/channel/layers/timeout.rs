//! Ends a call at its deadline, wherever it is by then.

use std::sync::Arc;

use tokio::time::sleep_until;

use crate::channel::{
    call::{Answer, Call, Step},
    error::CallError,
};

/// Fails with DEADLINE_EXCEEDED when the call's deadline passes, until the last byte of its answer, or when the policy's
/// timeout passes before the answer has begun. A call without either may go on for ever.
pub(crate) struct Expiry<S> {
    service: Arc<str>,
    inner: S,
}

impl<S> Expiry<S> {
    pub(crate) fn new(service: Arc<str>, inner: S) -> Self {
        Self { service, inner }
    }
}

impl<S: Step> Step for Expiry<S> {
    async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let Some(answer_by) = call.answer_by else { return self.inner.call(call).await };
        // In a box, because it goes on into the answer's body.
        let mut expiry = Box::pin(sleep_until(answer_by.0));
        let answer = tokio::select! {
            biased;
            answer = self.inner.call(call) => answer?,
            () = &mut expiry => {
                let peer = call.asked().map(|asked| asked.peer);
                return Err(CallError::DeadlineExceeded { service: self.service.to_string(), peer });
            }
        };
        let Some(deadline) = call.deadline else { return Ok(answer) };
        if deadline != answer_by {
            expiry.as_mut().reset(deadline.0);
        }
        Ok(answer.map(|body| body.until(expiry)))
    }
}
