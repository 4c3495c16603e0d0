//! What a certificate says, and what a service is given with it.

use std::{
    fmt, fs,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use meshwork::identity::SpiffeId;

use super::{
    CLOCK_SKEW, Error, Problem, Subject,
    certificate::Certificate,
    files::{CA_KEY, CERT, Folder, KEY, LEAF_BUNDLE},
};

/// What a certificate says. [`Leaf::new`] makes a good one; tests make bad ones of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// URI SANs: one, a SPIFFE ID (X509-SVID, 2).
    pub uris: Vec<String>,
    /// DNS SANs, for clients that know nothing of SPIFFE.
    pub dns: Vec<String>,
    /// IP SANs.
    pub ips: Vec<IpAddr>,
    /// Valid from, in whole seconds.
    pub not_before: SystemTime,
    /// Valid until, in whole seconds.
    pub not_after: SystemTime,
    /// Whether it may sign others: never, in a good one.
    pub is_ca: bool,
}

impl Leaf {
    /// A certificate that is valid now, for `lifetime`.
    pub fn new(trust_domain: &str, subject: &Subject, lifetime: Duration, now: SystemTime) -> Self {
        Self {
            uris: vec![format!("spiffe://{trust_domain}/{}", subject.path())],
            dns: subject.dns().to_owned(),
            ips: subject.ips().to_owned(),
            not_before: now - CLOCK_SKEW,
            not_after: now + lifetime,
            is_ca: false,
        }
    }

    /// The same for another period of the same length.
    pub(super) fn again(certificate: &Certificate, identity: &SpiffeId, now: SystemTime) -> Self {
        Self {
            uris: vec![identity.to_string()],
            dns: certificate.dns().to_owned(),
            ips: certificate.ips().to_owned(),
            not_before: now - CLOCK_SKEW,
            not_after: now + certificate.lifetime(),
            is_ca: false,
        }
    }
}

/// A certificate with its key, and the bundle of those that are trusted, all as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its key (PKCS #8): a secret.
    pub key_pem: String,
    /// The CAs that are trusted.
    pub bundle_pem: String,
}

impl Issued {
    /// Writes it to a folder as `cert.pem`, `key.pem` and `ca.pem`; the folder is made if it is missing. Files that are there are
    /// replaced, if they are of the same identity.
    ///
    /// # Errors
    /// The folder is another identity's or an authority's, or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|error| Error::leaf(folder, Problem::Io(error)))?;
        let locked = Folder::lock(folder).map_err(|error| Error::leaf(folder, Problem::Io(error)))?;
        self.check_folder(&locked).and_then(|()| self.write_to(&locked)).map_err(|problem| Error::leaf(folder, problem))
    }

    /// That nothing but an earlier certificate of the same identity is replaced.
    fn check_folder(&self, folder: &Folder) -> Result<(), Problem> {
        if folder.read(CA_KEY)?.is_some() {
            return Err(Problem::IsAuthority);
        }
        let Some(there) = folder.read(CERT)? else { return Ok(()) };
        let there = Certificate::read(CERT.name, &there)?;
        let new = Certificate::read(CERT.name, &self.cert_pem)?;
        if there.uris() == new.uris() { Ok(()) } else { Err(Problem::OtherIdentity(there.uris().join(" "))) }
    }

    /// The key comes before the certificate, and both before the bundle: a reader of all three takes only a set that fits.
    pub(super) fn write_to(&self, folder: &Folder) -> Result<(), Problem> {
        folder.replace(&[(KEY, &self.key_pem), (CERT, &self.cert_pem), (LEAF_BUNDLE, &self.bundle_pem)])
    }
}

impl fmt::Debug for Issued {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cert_pem, key_pem: _, bundle_pem } = self;
        f.debug_struct("Issued").field("cert_pem", cert_pem).field("bundle_pem", bundle_pem).finish_non_exhaustive()
    }
}
