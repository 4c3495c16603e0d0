//! Ends an attempt at the deadline of its call, wherever it is by then.
//!
//! The timer begins with the attempt and goes on into the body of its answer: until the answer is committed it ends at the
//! deadline or at the policy's timeout, whichever is earlier, and from there on at the deadline alone. So the failure says
//! which endpoint had not answered.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::deadline::Deadline;

/// The time that an attempt has. Without a deadline and a policy's timeout a call may go on for ever.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

/// The time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired;

impl Timer {
    /// Runs until then, when the answer must have begun.
    pub(crate) fn until_answer(answer_by: Option<Deadline>) -> Self {
        // In a box, because it goes on into the answer's body.
        Self(answer_by.map(|at| Box::pin(sleep_until(at.0))))
    }

    /// Waits for `work`, but not longer.
    pub(crate) async fn limit<F: Future>(&mut self, work: F) -> Result<F::Output, Expired> {
        let Some(sleep) = &mut self.0 else { return Ok(work.await) };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = sleep => Err(Expired),
        }
    }

    /// Whether the time is over. Wakes the task when it is.
    pub(crate) fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<Expired> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(context).map(|()| Expired),
            None => Poll::Pending,
        }
    }

    /// The answer has begun: only the deadline of the call itself holds.
    pub(crate) fn until_deadline(&mut self, deadline: Option<Deadline>) {
        match (&mut self.0, deadline) {
            (Some(sleep), Some(deadline)) if sleep.deadline() != deadline.0 => sleep.as_mut().reset(deadline.0),
            (Some(_), Some(_)) | (None, _) => {}
            (timer @ Some(_), None) => *timer = None,
        }
    }

    /// When the time is over.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.as_ref().map(|sleep| sleep.deadline())
    }
}
