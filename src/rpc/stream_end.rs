//! The status that ends a long stream when its client should continue on another instance, for servers and handlers.

use tonic::{Code, Status};

use super::Domain;
use crate::headers::Refusal;

/// The domain of the server's own errors, beside those of its handlers.
pub(crate) const SERVER: Domain = Domain::new("server.meshwork");

/// Ends a long stream whose server leaves: the client moves to another instance.
pub fn draining_status() -> Status {
    SERVER.error(Code::Unavailable, Refusal::Draining.reason(), "this instance is stopping: continue on another one")
}

/// Ends a long stream with its connection, whose certificate expires: the client connects anew, and continues.
pub(crate) fn connection_ends_status() -> Status {
    let message = "this connection ends before its certificate expires: continue on a new one";
    SERVER.error(Code::Unavailable, "CONNECTION_ENDS", message)
}

/// Ends a long stream while its server is NOT_SERVING (see [`Server::serving`](crate::server::Server::serving)): the client
/// moves to another instance.
pub fn not_serving_status(problem: &str) -> Status {
    let message = format!("this instance is NOT_SERVING ({problem}): continue on another one");
    SERVER.error(Code::Unavailable, "NOT_SERVING", message)
}
