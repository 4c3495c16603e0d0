//! Bounds the wait for an answer of the server.
//!
//! The server bounds its own work (see [`connect`](super::connect)); this bound is for a server, or a network, that does
//! not answer at all.

use std::{future::Future, io, time::Duration};

/// Longer than the server's statement timeout, so that its own error comes first wherever it can.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The server's answer, or an I/O error if there is none.
pub(super) async fn answered<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = || sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(silent()))
}
