//! Certificates of a run, in folders as `--tls-dir` takes them.

use std::{
    io,
    path::{Path, PathBuf},
};

use meshwork::identity::{Identity, TlsFiles};
use meshwork_fixture::Authority;

/// An authority, and where the certificates are that it has signed.
pub(crate) struct Certificates {
    folder: PathBuf,
    authority: Authority,
}

impl Certificates {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), authority: Authority::new("bench.test") }
    }

    /// The folder of a service's certificate.
    pub(crate) fn folder(&self, service: &str) -> String {
        self.folder.join(service).to_string_lossy().into_owned()
    }

    /// Writes a certificate of a service, for an hour.
    pub(crate) fn issue(&self, service: &str) -> io::Result<()> {
        self.authority.issue(&format!("service/{service}")).write(&self.folder.join(service))
    }

    /// Writes a certificate of a service, and takes it.
    pub(crate) fn identity(&self, service: &str) -> io::Result<Identity> {
        self.issue(service)?;
        Identity::from_files(TlsFiles::in_folder(&self.folder.join(service))).map_err(io::Error::other)
    }
}
