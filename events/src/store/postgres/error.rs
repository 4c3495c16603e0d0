//! Classifies the server's errors by what the caller can do about them. The codes are those of PostgreSQL's documentation,
//! appendix A.

use std::io;

use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// Turns an error into what can be done about it.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    match kind(&error) {
        Kind::Conflict => StoreError::Conflict(error.into()),
        Kind::Unavailable => StoreError::Unavailable(error.into()),
        Kind::Refused => StoreError::Refused(error.into()),
    }
}

/// Turns an error of a commit into what is known about its transaction.
pub(super) fn classify_commit(error: sqlx::Error) -> StoreError {
    match kind(&error) {
        // Unless the server ended the transaction before it read the commit: this process had stood still in it.
        Kind::Unavailable if !has_code(&error, &["25P03"]) => StoreError::CommitUnknown(error.into()),
        Kind::Unavailable | Kind::Conflict | Kind::Refused => classify(error),
    }
}

enum Kind {
    Conflict,
    Unavailable,
    Refused,
}

fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            // Serialization failure, deadlock, unique violation.
            "40001" | "40P01" | "23505" => Kind::Conflict,
            code if is_stale(error) || is_unavailable(code) => Kind::Unavailable,
            _ => Kind::Refused,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        _ => Kind::Refused,
    }
}

/// Whether the connection is of no more use, while another may be.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            is_stale(error)
                || is_read_only(error)
                || code == "25P03"
                || code.starts_with("08")
                || code.starts_with("57P")
        }
        _ => false,
    }
}

/// Whether the session, or its whole server, takes no writes: a standby, or a primary that was demoted.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    has_code(error, &["25006"])
}

/// Whether a prepared statement no longer fits: the schema was changed (0A000 where plans are checked, not every feature
/// that is not supported), or a proxy changed servers (26000).
pub(super) fn is_stale(error: &sqlx::Error) -> bool {
    let database = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    database.is_some_and(|error| error.code() == "26000" || error.routine() == Some("RevalidateCachedQuery"))
}

/// Whether the server is starting, or has no place left: worth another try.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        // A certificate that is not trusted now will not be in a moment.
        sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        sqlx::Error::PoolTimedOut => true,
        _ => has_code(error, &["57P03", "53300"]),
    }
}

/// Whether the server said one of these.
pub(super) fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&&*code))
}

fn is_unavailable(code: &str) -> bool {
    match code {
        // A standby, for the time of a failover; a lock or statement that took too long; and a transaction that stood still
        // for too long.
        "25006" | "55P03" | "57014" | "25P03" => true,
        // Connections, authentication, a database that is being replaced, resources, operators, the system underneath.
        _ => ["08", "28", "3D", "53", "57P", "58"].iter().any(|class| code.starts_with(class)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_listen_yet_is_tried_again_and_one_that_is_not_trusted_is_not() {
        let is_starting = |kind: io::ErrorKind| is_starting(&sqlx::Error::Io(kind.into()));
        assert!(is_starting(io::ErrorKind::ConnectionRefused));
        // What rustls makes of a certificate that no known authority has signed, and of another host's.
        assert!(!is_starting(io::ErrorKind::InvalidData));
    }
}
