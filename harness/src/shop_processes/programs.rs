//! Where the processes of a shop come from.

use std::path::PathBuf;

use tokio::task::spawn_blocking;

use crate::process;

/// The packages that they are built from; each names its binary, but for the last, which is `meshwork`.
const PACKAGES: [&str; 5] =
    ["meshwork-registry", "meshwork-customer", "meshwork-order", "meshwork-query", "meshwork-cli"];

/// How the services of a shop are run.
#[derive(Clone, Debug)]
pub enum Programs {
    /// One binary for each service, in this folder.
    Built(PathBuf),
    /// A test binary, which runs a [service](super::serve) in the test of this name if its arguments say so: a test needs nothing
    /// that cargo has not built.
    Test {
        /// The binary.
        path: PathBuf,
        /// The test's whole name.
        test: &'static str,
    },
}

impl Programs {
    /// The workspace's binaries, built if need be, as those of `package`, which calls this.
    pub async fn build(package: &'static str) -> Result<Self, process::Error> {
        let built = spawn_blocking(|| process::build(package, &PACKAGES)).await;
        Ok(Self::Built(built.expect("it does not panic, and the runtime lives on")?))
    }

    /// What to run for a service, and which arguments come before its flags.
    pub(super) fn of(&self, service: &str) -> (PathBuf, Vec<String>) {
        self.named(&format!("meshwork-{service}"))
    }

    /// The same for the command line.
    pub(super) fn command(&self) -> (PathBuf, Vec<String>) {
        self.named("meshwork")
    }

    fn named(&self, name: &str) -> (PathBuf, Vec<String>) {
        match self {
            Self::Built(folder) => (folder.join(name), Vec::new()),
            Self::Test { path, test } => {
                (path.clone(), ["--exact", test, "--nocapture", "--", name].map(str::to_owned).to_vec())
            }
        }
    }
}
