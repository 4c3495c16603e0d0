//! Certificates of a run, in folders as `--tls-dir` takes them.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork::identity::{Identity, TlsFiles};
use meshwork_fixture::{Authority, Issued, Leaf};

/// For clocks that differ.
const BEFORE: Duration = Duration::from_secs(60);
/// A certificate's life, unless it is to be renewed within the run.
pub(crate) const AN_HOUR: Duration = Duration::from_secs(3600);

/// An authority, and where the certificates are that it has signed.
pub(crate) struct Certificates {
    folder: PathBuf,
    authority: Authority,
}

impl Certificates {
    /// None yet, by a new authority.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), authority: Authority::new("bench.test") }
    }

    /// The folder of the certificate of `service/NAME` or `operator/NAME`.
    pub(crate) fn folder(&self, path: &str) -> String {
        self.folder.join(path).to_string_lossy().into_owned()
    }

    /// Its authority's own certificate.
    pub(crate) fn bundle(&self) -> String {
        self.authority.bundle()
    }

    /// Writes a certificate, for an hour.
    pub(crate) fn issue(&self, path: &str) -> io::Result<()> {
        self.issue_for(path, AN_HOUR, self.bundle())
    }

    /// Writes a certificate that lasts so long, and the authorities that its holder shall trust.
    pub(crate) fn issue_for(&self, path: &str, life: Duration, bundle: String) -> io::Result<()> {
        let now = SystemTime::now();
        let leaf = Leaf { valid: (now - BEFORE, now + life), ..self.authority.leaf(path) };
        Issued { bundle, ..self.authority.sign(&leaf) }.write(&self.folder.join(path))
    }

    /// Replaces the authorities that the holder of a certificate trusts.
    pub(crate) fn trust(&self, path: &str, bundle: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(path).join("ca.pem"), bundle)
    }

    /// Writes a certificate, and takes it.
    pub(crate) fn identity(&self, path: &str) -> io::Result<Identity> {
        self.issue(path)?;
        Identity::from_files(TlsFiles::in_folder(&self.folder.join(path))).map_err(io::Error::other)
    }
}
