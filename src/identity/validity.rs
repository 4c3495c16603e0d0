//! When a certificate can be used.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::{Instant, sleep_until};
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

/// Between two looks at the time of day.
const LOOK: Duration = Duration::from_secs(10);

/// A time by both clocks: dates of certificates are by the time of day, which may be set; the other stands still while a machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    monotonic: Instant,
    date: SystemTime,
}

impl Moment {
    /// So long from now, up to days.
    pub(crate) fn after(left: Duration) -> Self {
        Self { monotonic: Instant::now() + left, date: SystemTime::now() + left }
    }

    /// Ends once it has passed by either.
    pub(crate) async fn passed(self) {
        while Instant::now() < self.monotonic && SystemTime::now() < self.date {
            sleep_until(self.monotonic.min(Instant::now() + LOOK)).await;
        }
    }
}

/// A time as logs show it.
pub(super) fn shown(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_has_passed_when_either_clock_says_so() {
        const HOUR: Duration = Duration::from_secs(3600);
        let Moment { monotonic, date } = Moment::after(HOUR);
        let asleep = Moment { monotonic, date: date - HOUR };
        assert_eq!(asleep.passed().now_or_never(), Some(()));
        let set_back = Moment { monotonic, date: date + HOUR };
        set_back.passed().await;
        assert_eq!(Instant::now(), monotonic);
    }
}
