//! New certificates for those whose time runs out, and the bundle for all.

use std::{path::Path, time::SystemTime};

use meshwork::identity::SpiffeId;

use super::{
    Authority, Certificate, Error, Issued, Leaf, Problem,
    files::{CERT, Folder, KEY, LEAF_BUNDLE},
    signer::fits,
};

/// Which certificates are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Those with less than half of their life left, and those that another CA has signed than the one that signs now.
    WhenDue,
    /// All.
    Now,
}

/// What was done with a folder, and what is in it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Whose certificate it is.
    pub identity: SpiffeId,
    /// Whether there is a new certificate and key.
    pub reissued: bool,
    /// Whether other CAs are trusted than before.
    pub bundle_changed: bool,
    /// Valid until.
    pub not_after: SystemTime,
    /// When it is to be renewed next.
    pub due: SystemTime,
}

/// What is in the folder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Whose it is.
    pub identity: SpiffeId,
    /// The certificate.
    pub certificate: Certificate,
    /// Whether the CA that signs now has signed it.
    pub signed: bool,
    /// Whether the folder has the bundle as it is now.
    pub distributed: bool,
    /// Whether a crash came between the key and the certificate: a renewal finishes it.
    pub(super) is_draft: bool,
}

impl Authority {
    /// Replaces the certificate in a folder, if it is due, by one with a new key, for the same identity, names and time; expired or
    /// not. Distributes the bundle in any case.
    ///
    /// The certificate must be one that a trusted CA has signed, and the key beside it must fit: certificates are public, and whoever
    /// may write the folder could have put another's there, to be given a key for it.
    ///
    /// # Errors
    /// The folder has no such certificate, or cannot be written, or the CA has expired.
    pub fn renew(&self, folder: &Path, renewal: Renewal, now: SystemTime) -> Result<Renewed, Error> {
        let renewed = || {
            if !folder.exists() {
                return Err(Problem::NoCertificate(CERT.name));
            }
            self.renew_locked(&Folder::lock(folder)?, renewal, now)
        };
        renewed().map_err(|problem| Error::leaf(folder, problem))
    }

    fn renew_locked(&self, folder: &Folder, renewal: Renewal, now: SystemTime) -> Result<Renewed, Problem> {
        let Inspected { identity, certificate, signed, distributed, is_draft } = self.inspect_locked(folder)?;
        if is_draft {
            folder.finish(CERT)?;
        }
        // First: whoever trusts more CAs loses nothing by it.
        let bundle_changed = !distributed;
        folder.replace(&[(LEAF_BUNDLE, self.bundle_pem())])?;
        let due = renewal == Renewal::Now || now > certificate.half_life() || !signed;
        if !due {
            let (not_after, due) = (certificate.not_after(), certificate.half_life());
            return Ok(Renewed { identity, reissued: false, bundle_changed, not_after, due });
        }
        self.check_valid(now)?;
        let signed = self.signer.sign(&Leaf::again(&certificate, &identity, now))?;
        let new = Certificate::read(CERT.name, &signed.cert_pem)?;
        let bundle_pem = self.bundle_pem().to_owned();
        Issued { cert_pem: signed.cert_pem, key_pem: signed.key_pem, bundle_pem }.write_to(folder)?;
        let (not_after, due) = (new.not_after(), new.half_life());
        Ok(Renewed { identity, reissued: true, bundle_changed, not_after, due })
    }

    /// Looks at the certificate in a folder.
    ///
    /// # Errors
    /// The folder has none that this authority would renew.
    pub fn inspect(&self, folder: &Path) -> Result<Inspected, Problem> {
        if !folder.exists() {
            return Err(Problem::NoCertificate(CERT.name));
        }
        self.inspect_locked(&Folder::lock_shared(folder)?)
    }

    pub(super) fn inspect_locked(&self, folder: &Folder) -> Result<Inspected, Problem> {
        let (certificate, is_draft) = certificate_with_key(folder)?;
        let ours = certificate.identity().filter(|id| {
            let is_known = id.service().is_some() || id.is_operator();
            is_known && id.trust_domain() == self.trust_domain()
        });
        let trusted = self.trusted().iter().any(|ca| certificate.is_signed_by(ca));
        let identity = ours.filter(|_| trusted).ok_or_else(|| Problem::NotOurs(self.trust_domain().to_owned()))?;
        let signed = certificate.is_signed_by(self.certificate());
        let distributed = folder.read(LEAF_BUNDLE)?.as_deref() == Some(self.bundle_pem());
        Ok(Inspected { identity, certificate, signed, distributed, is_draft })
    }
}

/// The certificate in a folder whose key is there too, and whether it is still a draft: a crash came between the two.
fn certificate_with_key(folder: &Folder) -> Result<(Certificate, bool), Problem> {
    let cert = folder.read(CERT)?.ok_or(Problem::NoCertificate(CERT.name))?;
    let key = folder.read(KEY)?.ok_or(Problem::NoCertificate(KEY.name))?;
    let certificate = Certificate::read(CERT.name, &cert)?;
    if fits(&certificate, KEY.name, &key)? {
        return Ok((certificate, false));
    }
    let draft = folder.read_draft(CERT)?.and_then(|draft| Certificate::read(CERT.name, &draft).ok());
    match draft {
        Some(draft) if fits(&draft, KEY.name, &key)? => Ok((draft, true)),
        Some(_) | None => Err(Problem::KeyDoesNotFit { key: KEY.name, certificate: CERT.name }),
    }
}
