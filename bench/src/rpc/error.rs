//! Why calls could not be measured.

use meshwork_harness::process;

use crate::{clients, echo};

/// Why calls could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service under test.
    #[error(transparent)]
    Echo(#[from] echo::Error),
    /// A proxy does not run.
    #[error("{name} does not take calls: {source}")]
    Proxy {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A client under measure.
    #[error(transparent)]
    Client(#[from] clients::Error),
    /// The client that is the yardstick is all that was asked for, and it is not there.
    #[error("there is no client of \"before\": build it with bench/build-before, or name it with --before")]
    NoBefore,
    /// A process of a proxy, or a caller that cannot be started.
    #[error(transparent)]
    Process(#[from] process::Error),
}
