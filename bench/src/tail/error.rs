//! Why the experiment could not be made.

use std::path::PathBuf;

use meshwork_harness::process;

use crate::echo;

/// Why the experiment could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service under test.
    #[error(transparent)]
    Echo(#[from] echo::Error),
    /// A process under test.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A strategy cannot be set up.
    #[error("{what} failed: {source}")]
    Strategy {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The picture cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Plot {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
