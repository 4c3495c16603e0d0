//! Why a subscription's connection ended, and what that means for the next.

use tonic::{Code, Status};

use super::failure::with_cause;
use crate::store::StoreError;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The source asked to move, or ended the stream.
    Moved,
    /// Something about the source, or the way to it, that passes.
    Retry(String),
    /// This service's own store, which may be well again soon.
    Store(String),
    /// To be read again from the cursors, which somebody has moved.
    Again,
    /// This instance is shutting down.
    WriterClosed,
    /// What was read is not the source's past, or cannot be shown to be.
    DataLoss(String),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        match status.code() {
            // The second: CURSOR_EXPIRED, which cannot be checked.
            Code::DataLoss | Code::OutOfRange => Self::DataLoss(status.message().to_owned()),
            _ => Self::Retry(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(with_cause(&error))
    }
}
