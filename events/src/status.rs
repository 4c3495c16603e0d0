//! Maps errors of the store to the status that callers see: a code to act on, and nothing of the store's internals.

use std::{error::Error, time::Duration};

use meshwork::{
    cause::with_causes,
    log_limit::{LogLimit, MAX_CAUSES},
    rpc::Domain,
};
use tonic::{Code, Status};

use crate::{store::StoreError, writer::WriteError};

/// When callers are to try again after the database failed: long enough for a restart to make progress, short for a person.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The status of an input that had no effect. `refused` knows the service's own refusals.
pub fn write_status<R: Error + 'static>(
    domain: Domain,
    error: WriteError<R>,
    refused: impl FnOnce(&R) -> Status,
) -> Status {
    match error {
        WriteError::Refused(refusal) => refused(&refusal),
        WriteError::Store(error) => store_status(domain, &error),
        WriteError::Closed => domain.retry_later("SHUTTING_DOWN", "this instance is stopping", RETRY_DELAY),
        WriteError::Fenced => defect(domain, &error),
    }
}

/// The status of a failed read or write: UNAVAILABLE where trying again may help, INTERNAL for our own defects.
pub fn store_status(domain: Domain, error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_)
        | StoreError::Conflict(_)
        | StoreError::Replaced { .. }
        | StoreError::WentBack { .. } => {
            database_failed(error);
            domain.retry_later("STORE_UNAVAILABLE", "the database is unavailable", RETRY_DELAY)
        }
        StoreError::CommitUnknown(_) => {
            database_failed(error);
            let message = "the database did not answer, so the change may or may not have been made: repeat it with its request_id";
            domain.retry_later("OUTCOME_UNKNOWN", message, RETRY_DELAY)
        }
        _ => defect(domain, error),
    }
}

/// Logs the failure; each at most once a minute, because every call fails while the database is unavailable.
fn database_failed(error: &StoreError) {
    static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
    if let Some(left_out) = LIMIT.pass_once(with_causes(error)) {
        tracing::warn!(error = error as &dyn Error, "the database failed{left_out}");
    }
}

fn defect(domain: Domain, error: &(dyn Error + 'static)) -> Status {
    // Callers may know how to provoke a defect; any other is worth a line.
    static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
    if let Some(left_out) = LIMIT.pass_once(with_causes(error)) {
        tracing::error!(error, "a defect{left_out}");
    }
    domain.error(Code::Internal, "INTERNAL", "internal error; the server's log says more")
}

#[cfg(test)]
mod tests {
    use std::{fmt, sync::Arc};

    use super::*;

    const DOMAIN: Domain = Domain::new("test.shop");

    #[derive(Debug)]
    struct Refusal;

    impl fmt::Display for Refusal {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("refused")
        }
    }

    impl Error for Refusal {}

    fn status(error: WriteError<Refusal>) -> Status {
        write_status(DOMAIN, error, |_| DOMAIN.error(Code::NotFound, "REFUSED", "no"))
    }

    #[test]
    fn only_a_defect_is_internal_and_none_shows_its_insides() {
        let decode = StoreError::Decode { column: 3, expected: "a secret" };
        let internal = status(WriteError::Store(Arc::new(decode)));
        assert_eq!(internal.code(), Code::Internal);
        assert!(!internal.message().contains("secret"), "{}", internal.message());

        assert_eq!(status(WriteError::Refused(Refusal)).code(), Code::NotFound);
        assert_eq!(status(WriteError::Closed).code(), Code::Unavailable);
    }
}
