//! The replacement of an authority's key, in three steps, so that at no time one service refuses another's certificate.
//!
//! ```text
//!             1. a new CA is trusted         2. it signs                   3. the old one is dropped
//!  Settled ------------------> NextTrusted ------------------> NextSigns ------------------> Settled
//!                signs: old, trusted: both      signs: new, trusted: both    signs and trusted: new
//! ```
//!
//! After each step `renew` brings it to the folders, and services read them. A step is refused while a folder lacks what the one
//! before has brought.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Authority, Error, Problem, Stage,
    files::{BUNDLE, CA, CA_KEY, CERT, Folder, LEAF_BUNDLE, NEXT, NEXT_KEY},
    signer::{Signed, Signer},
};

/// Whether a step is safe.
#[derive(Clone, Copy, Debug)]
pub enum Check<'a> {
    /// Each of these folders must have what the step before has brought, for at least this long: services need a time to read it.
    Folders(&'a [PathBuf], Duration),
    /// Folders are elsewhere, and whoever calls has looked.
    Skipped,
}

impl Authority {
    /// Takes the next step. The first one makes a CA of this lifetime.
    ///
    /// # Errors
    /// A folder lacks what the step before has brought, or the authority cannot be written.
    pub fn rotate(&mut self, check: Check<'_>, lifetime: Duration, now: SystemTime) -> Result<Stage, Error> {
        let failed = |problem| Error::authority(&self.folder, problem);
        let locked = Folder::lock(&self.folder).map_err(|error| failed(Problem::Io(error)))?;
        let current = Self::load(&self.folder, &locked).map_err(failed)?;
        if let Check::Folders(folders, settled) = check {
            for folder in folders {
                current.check_reached(folder, settled, now).map_err(|problem| Error::leaf(folder, problem))?;
            }
        }
        let stepped = || {
            match current.stage() {
                Stage::Settled => current.trust_next(&locked, lifetime, now)?,
                Stage::NextTrusted => switch(&locked)?,
                Stage::NextSigns => current.drop_old(&locked)?,
            }
            Self::load(&self.folder, &locked)
        };
        *self = stepped().map_err(failed)?;
        Ok(self.stage())
    }

    /// That a folder has what the step before has brought.
    fn check_reached(&self, folder: &Path, settled: Duration, now: SystemTime) -> Result<(), Problem> {
        if !folder.exists() {
            return Err(Problem::NoCertificate(CERT.name));
        }
        let folder = Folder::lock_shared(folder)?;
        let found = self.inspect_locked(&folder)?;
        let brought = match self.stage() {
            Stage::Settled => return Ok(()),
            Stage::NextTrusted | Stage::NextSigns if !found.distributed => return Err(Problem::NotDistributed),
            Stage::NextTrusted => LEAF_BUNDLE,
            Stage::NextSigns if !found.signed || found.is_draft => return Err(Problem::NotReissued),
            Stage::NextSigns => CERT,
        };
        let brought = folder.written(brought)?;
        let since = now.duration_since(brought).unwrap_or_default();
        match settled.checked_sub(since) {
            None | Some(Duration::ZERO) => Ok(()),
            // In whole seconds, as people read it.
            Some(left) => Err(Problem::TooFresh(Duration::from_secs(left.as_secs_f64().ceil() as u64))),
        }
    }

    /// Step 1. The new CA counts once it is in the bundle; what a crash leaves before that is made anew.
    fn trust_next(&self, folder: &Folder, lifetime: Duration, now: SystemTime) -> Result<(), Problem> {
        let Signed { cert_pem, key_pem } = Signer::create(self.trust_domain(), lifetime, now)?;
        folder.replace(&[(NEXT_KEY, &key_pem), (NEXT, &cert_pem), (BUNDLE, &self.bundle.and(&cert_pem))])
    }

    /// Step 3.
    fn drop_old(&self, folder: &Folder) -> Result<(), Problem> {
        if self.half_switched {
            folder.rename(NEXT, CA)?;
        }
        folder.replace(&[(BUNDLE, self.signer.pem())])
    }
}

/// Step 2: the key first. After a crash between the two its certificate is found in `next.pem`.
fn switch(folder: &Folder) -> Result<(), Problem> {
    folder.rename(NEXT_KEY, CA_KEY)?;
    folder.rename(NEXT, CA)?;
    folder.sync()
}
