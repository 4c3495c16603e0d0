//! Certificates of a run, as `meshwork ca` makes, renews and rotates them, in folders as `--tls-dir` takes them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork::identity::{Identity, InvalidIdentity, TlsFiles};
use meshwork_cli::ca::{self, Authority, CA_LIFETIME, Check, Renewal, Stage};

/// Of all certificates of a run.
pub const TRUST_DOMAIN: &str = "run.test";
/// A certificate's life, unless it is to be renewed within the run.
pub const AN_HOUR: Duration = Duration::from_secs(3600);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be made.
    #[error(transparent)]
    Authority(#[from] ca::Error),
    /// They cannot be used.
    #[error("a certificate {0}")]
    Identity(#[from] InvalidIdentity),
}

/// An authority, and the folders of the certificates that it has signed, each named as in its SPIFFE ID.
pub struct Certificates {
    folder: PathBuf,
    authority: Authority,
}

impl Certificates {
    /// A new authority in `folder`/ca.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let authority = Authority::init(&folder.join("ca"), TRUST_DOMAIN, CA_LIFETIME, SystemTime::now())?;
        Ok(Self { folder: folder.to_owned(), authority })
    }

    /// The folder of the certificate of `service/NAME` or `operator/NAME`.
    pub fn folder(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The same as a flag's value.
    pub fn flag(&self, path: &str) -> String {
        self.folder(path).to_string_lossy().into_owned()
    }

    /// Writes a certificate.
    pub fn issue(&self, path: &str, life: Duration) -> Result<(), Error> {
        let subject = path.parse().expect("a name of the run's own");
        Ok(self.authority.issue(&subject, life, SystemTime::now())?.write(&self.folder(path))?)
    }

    /// Writes a certificate for an hour, and takes it.
    pub fn identity(&self, path: &str) -> Result<Identity, Error> {
        self.issue(path, AN_HOUR)?;
        Ok(Identity::from_files(TlsFiles::in_folder(&self.folder(path)))?)
    }

    /// Renews certificates, and brings them the authorities that are trusted now.
    pub fn renew(&self, paths: &[&str], renewal: Renewal) -> Result<(), Error> {
        let now = SystemTime::now();
        paths.iter().try_for_each(|path| Ok(self.authority.renew(&self.folder(path), renewal, now).map(drop)?))
    }

    /// Takes the next of the three steps that replace the authority's key, if these certificates have had for so long what the one before
    /// has brought.
    pub fn rotate(&mut self, paths: &[&str], settled: Duration) -> Result<Stage, Error> {
        let folders: Vec<PathBuf> = paths.iter().map(|path| self.folder(path)).collect();
        Ok(self.authority.rotate(Check::Folders(&folders, settled), CA_LIFETIME, SystemTime::now())?)
    }
}
