//! The clients under measure, each in a process of its own, and the turns that they take.

mod peer;
pub(crate) mod ratios;
mod turns;

use std::path::{Path, PathBuf};

use meshwork_harness::process::{self, build_alone};
use tokio::task::spawn_blocking;

pub(crate) use peer::Peer;
pub(crate) use turns::Turns;

/// The package of the caller, and its program.
pub(crate) const PACKAGE: &str = "meshwork-caller";

/// The program that was asked for, or else this tree's, built if need be.
pub(crate) async fn callers_program(given: Option<&Path>) -> Result<PathBuf, process::Error> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let built = spawn_blocking(|| Ok(build_alone(PACKAGE)?.join(PACKAGE)));
    built.await.expect("it does not panic, and the runtime lives on")
}

/// Why a client could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A caller speaks another language.
    #[error("{name} is no caller of this benchmark: {source}")]
    Answer {
        /// Which.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A process of a client, or of what it calls.
    #[error(transparent)]
    Process(#[from] process::Error),
}
