//! Ends a call at its deadline, wherever it is by then.

use std::sync::Arc;

use tokio::time::sleep_until;

use super::{
    call::{Answer, Call, Step},
    error::CallError,
};

/// Fails with DEADLINE_EXCEEDED when the call's deadline passes, until the last byte of its answer. A call without a
/// deadline may go on for ever.
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
        let Some(deadline) = call.deadline else { return self.inner.call(call).await };
        // In a box, because it goes on into the answer's body.
        let mut expiry = Box::pin(sleep_until(deadline.0));
        tokio::select! {
            biased;
            answer = self.inner.call(call) => Ok(answer?.map(|body| body.until(expiry))),
            () = &mut expiry => {
                Err(CallError::DeadlineExceeded { service: self.service.to_string(), peer: call.asked() })
            }
        }
    }
}
