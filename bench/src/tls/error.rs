//! Why mutual TLS could not be measured.

use std::io;

use meshwork::MeshError;
use meshwork_harness::{certificates, process, shop_processes};
use meshwork_process::Failure;

use crate::{clients, echo, load};

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
    /// The shop under test.
    #[error(transparent)]
    Shop(#[from] shop_processes::Error),
    /// Its load.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// A client that joins it.
    #[error("the mesh cannot be reached: {0}")]
    Mesh(#[from] MeshError),
    /// A process is not in the registry.
    #[error("{0} is not in the registry as it should be")]
    NotListed(String),
    /// Envoy is all that was asked for.
    #[error("which Envoy? name its program with --envoy")]
    NoEnvoy,
    /// An Envoy does not run.
    #[error("{name} does not take connections: {source}")]
    Envoy {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// A handshake.
    #[error("a handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// There is no port for an Envoy.
    #[error("no free port: {0}")]
    Port(io::Error),
    /// What a process has logged.
    #[error("the log of a process cannot be read: {0}")]
    Log(io::Error),
}
