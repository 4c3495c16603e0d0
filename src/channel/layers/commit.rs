//! Takes an answer only when its message has begun to come, if the call can still be sent again until then.
//!
//! The answer of a server that fails has its status in the headers, and needs no waiting. But a server may also end between
//! headers and message, or send headers before it knows how the call goes. Of a method with one response nobody can do
//! anything with headers alone, so that waiting for the first frame delays nobody; a stream's headers go to its caller at
//! once, because its first message may be hours away.

use crate::channel::{
    call::{Answer, Call, Step},
    error::CallError,
};

/// Reads the first frame of unary answers ahead, as part of the attempt.
pub(crate) struct Unbroken<S> {
    inner: S,
}

impl<S> Unbroken<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Step> Step for Unbroken<S> {
    async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let answered = self.inner.call(call).await;
        unbroken(call, answered).await
    }
}

/// Takes the answer of one attempt.
pub(crate) async fn unbroken(call: &Call, answered: Result<Answer, CallError>) -> Result<Answer, CallError> {
    let mut answer = answered?;
    if call.terms.method.as_ref().is_some_and(|method| method.allowance.unary) {
        answer.body_mut().read_ahead().await.map_err(CallError::Endpoint)?;
    }
    Ok(answer)
}
