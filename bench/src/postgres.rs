//! A PostgreSQL server of the run's own, where its programs are installed.

use std::path::Path;

use meshwork_fixture::{Server, ServerError};

/// Starts a server in an empty folder, as initdb makes it, so that what it has committed is on the disk (fsync and synchronous_commit are on).
/// `None`, said aloud: it is not installed.
pub(crate) fn start(folder: &Path) -> Result<Option<Server>, ServerError> {
    match Server::start(folder) {
        Ok(server) => Ok(Some(server)),
        Err(ServerError::NotInstalled) => {
            eprintln!("PostgreSQL is not installed: its figures are left out");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
