//! When a certificate can be used.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

/// When a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not earlier.
    pub not_before: SystemTime,
    /// Not later.
    pub not_after: SystemTime,
}

impl Validity {
    /// What is left at `now`; zero once it has expired.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// All of it.
    pub fn whole(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// When a certificate can be used. `None`: it cannot be read.
    ///
    /// webpki tells a certificate's dates only in the error of a verification that is too early or too late. They are the first that
    /// it looks at, so that nothing else is verified.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        const LATE: Duration = Duration::from_secs(u64::MAX);
        let leaf = EndEntityCert::try_from(certificate).ok()?;
        let at = |time| {
            let time = UnixTime::since_unix_epoch(time);
            leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::client_auth(), None, None).err()
        };
        let system = |time: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        match (at(Duration::ZERO)?, at(LATE)?) {
            (webpki::Error::CertNotValidYet { not_before, .. }, webpki::Error::CertExpired { not_after, .. }) => {
                Some(Self { not_before: system(not_before)?, not_after: system(not_after)? })
            }
            _ => None,
        }
    }
}

/// A time as logs show it.
pub(super) fn shown(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}
