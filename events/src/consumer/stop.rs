//! Names the reasons why a subscription's connection ended, and what each means for the next.

use meshwork::{
    cause::with_causes,
    rpc::{code_name, may_pass},
};
use tonic::{Code, Status};

use crate::{outbox::is_expired, store::StoreError};

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The source asked to move, or ended the stream.
    Moved,
    /// Something about the source, or the way to it, that passes.
    Retry(String),
    /// This service's own store, which may be well again soon.
    Store(String),
    /// The cursors were moved: read again from there.
    Again,
    /// This instance is shutting down.
    WriterClosed,
    /// The source refuses what this reader asks, or answers what makes no sense: one of the two is not what the other takes it
    /// for, which needs a person.
    Misfit(String),
    /// What was read is not the source's past.
    DataLoss(String),
    /// What comes next was pruned, or what was read cannot be shown to be the source's past because that was.
    Expired(String),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::DataLoss => Self::DataLoss(status.message().to_owned()),
            _ if is_expired(&status) => Self::Expired(status.message().to_owned()),
            code if may_pass(code) => Self::Retry(said(&status)),
            _ => Self::Misfit(said(&status)),
        }
    }
}

fn said(status: &Status) -> String {
    format!("{}: {}", code_name(status.code()), status.message())
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(with_causes(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{CURSOR_EXPIRED, DOMAIN};

    #[test]
    fn a_source_that_refuses_is_not_one_that_is_away() {
        for code in (0..=16).map(Code::from).filter(|code| *code != Code::Ok) {
            let stop = Stop::from(Status::new(code, "why"));
            let expected = match code {
                Code::DataLoss => Stop::DataLoss("why".into()),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
                    Stop::Retry(format!("{}: why", code_name(code)))
                }
                Code::Unknown | Code::Internal | Code::Aborted => Stop::Retry(format!("{}: why", code_name(code))),
                _ => Stop::Misfit(format!("{}: why", code_name(code))),
            };
            assert_eq!(stop, expected);
        }
        let expired = DOMAIN.error(Code::OutOfRange, CURSOR_EXPIRED, "why");
        assert_eq!(Stop::from(expired), Stop::Expired("why".into()));
    }
}
