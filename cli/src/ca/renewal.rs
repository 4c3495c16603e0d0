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
        let (certificate, identity) = self.certificate_in(folder)?;
        // First: whoever trusts more CAs loses nothing by it.
        let bundle_changed = folder.read(LEAF_BUNDLE)?.as_deref() != Some(self.bundle_pem());
        folder.replace(&[(LEAF_BUNDLE, self.bundle_pem())])?;
        let due = renewal == Renewal::Now || now > certificate.half_life() || !self.signed(&certificate);
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

    /// The certificate in a folder, if it is one of this authority's.
    fn certificate_in(&self, folder: &Folder) -> Result<(Certificate, SpiffeId), Problem> {
        let certificate = certificate_with_key(folder)?;
        let ours = certificate.identity().filter(|id| {
            let is_known = id.service().is_some() || id.is_operator();
            is_known && id.trust_domain() == self.trust_domain()
        });
        let trusted = self.trusted().iter().any(|ca| certificate.is_signed_by(ca));
        let identity = ours.filter(|_| trusted).ok_or_else(|| Problem::NotOurs(self.trust_domain().to_owned()))?;
        Ok((certificate, identity))
    }

    /// Whether it was signed with the key that signs now.
    pub(super) fn signed(&self, certificate: &Certificate) -> bool {
        certificate.is_signed_by(self.certificate())
    }
}

/// The certificate in a folder, whose key is there too. Finishes what a crash between the two has cut off.
fn certificate_with_key(folder: &Folder) -> Result<Certificate, Problem> {
    let cert = folder.read(CERT)?.ok_or(Problem::NoCertificate(CERT.name))?;
    let key = folder.read(KEY)?.ok_or(Problem::NoCertificate(KEY.name))?;
    let certificate = Certificate::read(CERT.name, &cert)?;
    if fits(&certificate, KEY.name, &key)? {
        return Ok(certificate);
    }
    let draft = folder.read_draft(CERT)?.and_then(|draft| Certificate::read(CERT.name, &draft).ok());
    match draft {
        Some(draft) if fits(&draft, KEY.name, &key)? => {
            folder.finish(CERT)?;
            Ok(draft)
        }
        Some(_) | None => Err(Problem::KeyDoesNotFit { key: KEY.name, certificate: CERT.name }),
    }
}
