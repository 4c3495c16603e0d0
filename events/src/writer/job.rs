//! A job on its way through the loop: inputs that take effect together, and where their answer goes.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Decider, cursor::CursorMove};
use crate::{outbox::LogPoint, store::StoreError};

/// The answer to an input that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<R> {
    /// What the decider answered.
    pub reply: R,
    /// The point of this input's last event. `None` if nothing happened.
    pub point: Option<LogPoint>,
}

/// Why an input had no effect.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<R: std::error::Error> {
    /// The decider refused it.
    #[error("refused")]
    Refused(#[source] R),
    /// Its batch of consumed events was already folded, or is not the next one.
    #[error("the cursor is at another position")]
    Fenced,
    /// The database failed; nothing has changed, and the same input may succeed later. The exception is
    /// [`StoreError::CommitUnknown`].
    #[error("the database failed")]
    Store(#[source] Arc<StoreError>),
    /// The writer is closed.
    #[error("the writer is closed")]
    Closed,
}

/// An input, and the trace of what it comes of, as a `traceparent`; empty: none.
pub(crate) struct Traced<I> {
    pub(crate) input: I,
    pub(crate) trace_parent: String,
}

#[cfg(test)]
impl<I> From<I> for Traced<I> {
    /// Of no trace.
    fn from(input: I) -> Self {
        Self { input, trace_parent: String::new() }
    }
}

/// Inputs that take effect together or not at all.
pub(super) struct Job<D: Decider> {
    pub(super) inputs: Vec<Traced<D::Input>>,
    /// The claim of consumed events; commands have none.
    pub(super) cursor: Option<CursorMove>,
    pub(super) done: oneshot::Sender<JobResult<D>>,
}

pub(super) type JobResult<D> = Result<Vec<Applied<<D as Decider>::Reply>>, WriteError<<D as Decider>::Refusal>>;

/// What became of a job in a committed batch.
pub(super) enum JobOutcome<D: Decider> {
    /// All inputs took effect; an answer for each.
    Accepted(Vec<Applied<D::Reply>>),
    /// An input was refused, so nothing of its job took effect.
    Refused(D::Refusal),
    /// The cursor stood elsewhere; nothing of the job took effect.
    Fenced,
}

impl<D: Decider> Job<D> {
    pub(super) fn answer(self, outcome: JobOutcome<D>) {
        self.finish(match outcome {
            JobOutcome::Accepted(replies) => Ok(replies),
            JobOutcome::Refused(refusal) => Err(WriteError::Refused(refusal)),
            JobOutcome::Fenced => Err(WriteError::Fenced),
        });
    }

    pub(super) fn finish(self, result: JobResult<D>) {
        // A caller that has gone away needs no answer.
        let _ = self.done.send(result);
    }
}
