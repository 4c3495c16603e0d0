//! Why the saga could not be measured.

use meshwork::MeshError;
use meshwork_cli::fleet;
use meshwork_fixture::ServerError;
use meshwork_harness::process;

use super::pgbench;
use crate::load;

/// Why the saga could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The mesh does not start.
    #[error("the mesh did not start: {0}")]
    Fleet(#[from] fleet::Error),
    /// The load generator's own view of the mesh.
    #[error("the mesh cannot be reached: {0}")]
    Mesh(#[from] MeshError),
    /// The load.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// `meshwork up`.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A folder for the PostgreSQL server.
    #[error("cannot make a folder for PostgreSQL: {0}")]
    Folder(std::io::Error),
    /// The PostgreSQL server.
    #[error(transparent)]
    Postgres(#[from] ServerError),
    /// The server's peer.
    #[error(transparent)]
    Pgbench(#[from] pgbench::Error),
}
