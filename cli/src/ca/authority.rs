//! The authority in a folder: what signs, and what is trusted.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Certificate, Error, Issued, Leaf, Problem, Stage, Subject,
    bundle::Bundle,
    files::{BUNDLE, CA, CA_KEY, Folder, NEXT, NEXT_KEY, Named},
    signer::{Signed, Signer, check_ca_trust_domain},
};

/// How long before a CA expires this is warned of, at most; and at least a quarter of its life.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A CA in a folder, and the CAs that are trusted beside it during a rotation.
#[derive(Debug)]
pub struct Authority {
    pub(super) folder: PathBuf,
    pub(super) signer: Signer,
    pub(super) bundle: Bundle,
    /// The CA of `next.pem`, once it is trusted.
    pub(super) next: Option<Certificate>,
    /// A crash came between the two files of a new signer.
    pub(super) half_switched: bool,
}

impl Authority {
    /// Makes an authority, in a folder that is made if it is missing, for its owner alone.
    ///
    /// # Errors
    /// The trust domain is invalid, or there is an authority already.
    pub fn init(folder: &Path, trust_domain: &str, lifetime: Duration, now: SystemTime) -> Result<Self, Error> {
        check_ca_trust_domain(trust_domain)
            .map_err(|problem| Error::TrustDomain { name: trust_domain.to_owned(), problem })?;
        let made = || {
            make_private(folder)?;
            let locked = Folder::lock(folder)?;
            // A crash came before the last of its files: it has signed nothing yet, and is made anew.
            let is_half_made = locked.read(CA)?.is_none() && locked.read_draft(CA)?.is_some();
            for file in [CA, CA_KEY, NEXT, NEXT_KEY, BUNDLE] {
                if !is_half_made && locked.read(file)?.is_some() {
                    return Err(Problem::Exists(file.name));
                }
            }
            let Signed { cert_pem, key_pem } = Signer::create(trust_domain, lifetime, now)?;
            locked.replace(&[(CA_KEY, &key_pem), (BUNDLE, &cert_pem), (CA, &cert_pem)])?;
            Self::load(folder, &locked)
        };
        made().map_err(|problem| Error::authority(folder, problem))
    }

    /// Opens the authority of a folder.
    ///
    /// # Errors
    /// There is none, or its files do not belong together.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let opened = || {
            if !folder.exists() {
                return Err(Problem::NoAuthority);
            }
            Self::load(folder, &Folder::lock_shared(folder)?)
        };
        opened().map_err(|problem| Error::authority(folder, problem))
    }

    pub(super) fn load(folder: &Path, locked: &Folder) -> Result<Self, Problem> {
        let required = |file: Named| locked.read(file)?.ok_or(Problem::NoAuthority);
        let (ca, key, next) = (required(CA)?, required(CA_KEY)?, locked.read(NEXT)?);
        let (signer, half_switched) = match (Signer::read(ca, &key)?, next.clone()) {
            (Some(signer), _) => (signer, false),
            (None, Some(next)) => (Signer::read(next, &key)?.ok_or(MISFIT)?, true),
            (None, None) => return Err(MISFIT),
        };
        let bundle = Bundle::read(required(BUNDLE)?, signer.trust_domain())?;
        if !bundle.contains(signer.certificate()) {
            return Err(Problem::NotInBundle);
        }
        // One that a crash left before it was trusted is made anew.
        let next = next.filter(|_| !half_switched).map(|next| Certificate::read(NEXT.name, &next)).transpose()?;
        let next = next.filter(|next| bundle.contains(next));
        Ok(Self { folder: folder.to_owned(), signer, bundle, next, half_switched })
    }

    /// The certificate of a service or an operator, valid from now. It is not written: see [`Issued::write`].
    ///
    /// # Errors
    /// The CA has expired.
    pub fn issue(&self, subject: &Subject, lifetime: Duration, now: SystemTime) -> Result<Issued, Error> {
        self.check_valid(now).map_err(|problem| Error::authority(&self.folder, problem))?;
        self.sign(&Leaf::new(self.trust_domain(), subject, lifetime, now))
    }

    /// Any certificate: for tests of those that must be refused.
    ///
    /// # Errors
    /// A name is not ASCII.
    pub fn sign(&self, leaf: &Leaf) -> Result<Issued, Error> {
        let signed = self.signer.sign(leaf).map_err(|problem| Error::authority(&self.folder, problem))?;
        let Signed { cert_pem, key_pem } = signed;
        Ok(Issued { cert_pem, key_pem, bundle_pem: self.bundle_pem().to_owned() })
    }

    pub(super) fn check_valid(&self, now: SystemTime) -> Result<(), Problem> {
        let not_after = self.certificate().not_after();
        if now < not_after { Ok(()) } else { Err(Problem::Expired(not_after)) }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &str {
        self.signer.trust_domain()
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &Certificate {
        self.signer.certificate()
    }

    /// The CAs that are trusted: the one that signs, and another one during a rotation.
    pub fn trusted(&self) -> &[Certificate] {
        self.bundle.cas()
    }

    /// The same as PEM, as it is given to each service.
    pub fn bundle_pem(&self) -> &str {
        self.bundle.pem()
    }

    /// Where it is in the replacement of its key.
    pub fn stage(&self) -> Stage {
        match &self.next {
            Some(_) => Stage::NextTrusted,
            None if self.bundle.cas().len() > 1 => Stage::NextSigns,
            None => Stage::Settled,
        }
    }

    /// Whether it is time to replace the CA: a quarter of its life is left, or 30 days if that is less.
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        let ca = self.certificate();
        now + WARN_BEFORE.min(ca.lifetime() / 4) > ca.not_after()
    }
}

const MISFIT: Problem = Problem::KeyDoesNotFit { key: CA_KEY.name, certificate: CA.name };

/// Makes a folder that only its owner may enter. One that is there stays as it is.
fn make_private(folder: &Path) -> Result<(), Problem> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), fs::create_dir_all)?;
    Ok(fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?)
}
