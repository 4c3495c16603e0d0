//! `meshwork up` as its users start it: how soon it is ready, and what it holds when nothing happens.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use meshwork_harness::process::{self, Process};
use tokio::task::spawn_blocking;

/// What `meshwork up` says when every instance serves.
const READY: &str = "mesh is ready";
/// Far beyond the second that it should take.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Long enough for leases to be renewed and caches to settle.
const IDLE: Duration = Duration::from_secs(4);
/// An idle mesh drains in a fraction of this.
const END_LIMIT: Duration = Duration::from_secs(15);

/// A start of `meshwork up`.
pub(super) struct Startup {
    /// From the process's start to the line that says it is ready.
    pub(super) ready: Duration,
    /// Resident memory after a few idle seconds, MiB.
    pub(super) idle_rss_mb: f64,
}

/// The `meshwork` binary, built if need be.
pub(super) async fn binary() -> Result<PathBuf, process::Error> {
    blocking(|| Ok(process::build(env!("CARGO_PKG_NAME"), &["meshwork-cli"])?.join("meshwork"))).await
}

/// Starts a mesh on a free port with its data in `folder`, and ends it with SIGTERM.
pub(super) async fn measure(meshwork: &Path, folder: PathBuf) -> Result<Startup, process::Error> {
    let meshwork = meshwork.to_path_buf();
    blocking(move || {
        let folder = folder.to_string_lossy();
        let mut up = Process::start(&meshwork, &["up", "--registry-addr", "127.0.0.1:0", "--data-dir", &folder])?;
        let (ready, _) = up.wait_for_line(READY, READY_LIMIT)?;
        thread::sleep(IDLE);
        let idle_rss_mb = up.rss_mb()?;
        up.terminate(END_LIMIT)?;
        Ok(Startup { ready, idle_rss_mb })
    })
    .await
}

/// Runs `work`, which waits for a process, on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, process::Error> + Send + 'static,
) -> Result<T, process::Error> {
    spawn_blocking(work).await.expect("it does not panic, and the runtime lives on")
}
