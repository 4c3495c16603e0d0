//! Why a shop could not be started, or does not run as it should.

use std::{io, path::PathBuf, process::ExitStatus};

use meshwork::{MeshError, identity::InvalidIdentity};
use meshwork_fixture::ServerError;

use crate::{certificates, process};

/// Why a shop could not be started, or does not run as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The PostgreSQL server.
    #[error(transparent)]
    Postgres(#[from] ServerError),
    /// There is no port to listen on.
    #[error("no free port: {0}")]
    Port(io::Error),
    /// The folder.
    #[error("cannot keep data in {}: {source}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This process's own view of the mesh.
    #[error("the mesh cannot be reached: {0}")]
    Mesh(#[from] MeshError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// Certificates cannot be used.
    #[error("the operator's certificate: {0}")]
    Identity(#[from] InvalidIdentity),
    /// A process that is to be started runs already.
    #[error("{0} runs already")]
    Runs(String),
    /// A process that is needed does not run.
    #[error("{0} does not run")]
    RunsNot(String),
    /// A process has ended unexpectedly.
    #[error("{0} has ended unexpectedly, with {1}")]
    Ended(String, ExitStatus),
    /// A process that is ready but does not say at which address.
    #[error("{0} is ready, but not at an address: {1:?}")]
    NoAddress(String, String),
    /// The command line has failed.
    #[error("`meshwork {0}` has failed; meshwork.log says why")]
    Command(String),
    /// A database could not be copied, or put back.
    #[error("the database of {0} could not be copied, or put back: {1}")]
    Copy(&'static str, io::Error),
}
