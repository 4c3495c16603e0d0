//! Why a fleet cannot start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use meshwork::{MeshError, identity::InvalidIdentity};
use meshwork_events::OpenError;
use meshwork_registry::policies::PolicyFileError;

use crate::ca;

/// Why a mesh cannot start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The data folder is something else.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// What it is.
        path: PathBuf,
    },
    /// The data folder cannot be written.
    #[error("cannot write {}", path.display())]
    Folder {
        /// The data folder.
        folder: PathBuf,
        /// It, or what is in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the data folder.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A database cannot be opened.
    #[error("cannot open {}", path.display())]
    Store {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// A database on the server cannot be opened.
    #[error("cannot open the database {database}")]
    Database {
        /// Its name.
        database: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The file of policies cannot be used.
    #[error("cannot open {}", path.display())]
    Policies {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PolicyFileError,
    },
    /// A certificate cannot be made or renewed.
    #[error("cannot make or renew the certificates in {}", folder.display())]
    Authority {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        #[source]
        source: ca::Error,
    },
    /// A certificate cannot be used.
    #[error("cannot use the certificate in {}", folder.display())]
    Identity {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        #[source]
        source: InvalidIdentity,
    },
    /// The registry's address is none.
    #[error("the registry cannot be reached")]
    Mesh(#[from] MeshError),
    /// Instances did not come up.
    #[error("{service}: {serving} of {wanted} instances were serving after {} s", waited.as_secs())]
    NotServing {
        /// The service.
        service: String,
        /// How many there are.
        serving: usize,
        /// How many there should be.
        wanted: usize,
        /// For how long they were waited for.
        waited: Duration,
    },
}
