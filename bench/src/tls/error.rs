//! Why mutual TLS could not be measured.

use std::io;

use meshwork_harness::process;
use meshwork_process::Failure;

use crate::{clients, echo};

/// Why mutual TLS could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service under test.
    #[error(transparent)]
    Echo(#[from] echo::Error),
    /// A client under measure.
    #[error(transparent)]
    Client(#[from] clients::Error),
    /// A process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The server of the handshakes cannot listen.
    #[error("the server of the handshakes cannot be started: {0}")]
    Listen(Failure),
    /// Certificates.
    #[error("cannot keep certificates: {0}")]
    Certificates(#[from] io::Error),
}
