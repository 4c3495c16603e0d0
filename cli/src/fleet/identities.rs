//! The certificates of a fleet with TLS: an authority of its own, and a folder for each service and for the operator.
//!
//! | in the data folder | what it is |
//! |---|---|
//! | `tls/ca` | the authority: whoever can read it can be anyone in this mesh |
//! | `tls/registry`, `tls/customer`, ... | `cert.pem`, `key.pem` and `ca.pem` of that service |
//! | `tls/operator` | the same of `operator/admin`, for the command line and grpcurl |

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use meshwork::identity::{Identity, REGISTRY, Security, TlsFiles};
use tokio::time::{MissedTickBehavior, interval};

use super::{Error, Service};
use crate::ca::{self, Authority, CA_LIFETIME, LEAF_LIFETIME, Renewal, Subject};

/// The trust domain of a fleet's authority.
const TRUST_DOMAIN: &str = "meshwork.local";
/// The operator that the fleet's certificate for people is that of.
const OPERATOR: &str = "admin";
/// The operator's folder, and place in [`Identities::of`].
pub(super) const OPERATOR_FOLDER: &str = "operator";
/// How often certificates are looked at: they are renewed when half of their 24 h is over.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// The identities of a fleet.
pub(super) struct Identities {
    folder: PathBuf,
}

impl Identities {
    /// Makes what is missing, and renews what is due.
    pub(super) fn open(folder: PathBuf, now: SystemTime) -> Result<Self, Error> {
        let identities = Self { folder };
        match identities.renew(now) {
            Ok(()) => Ok(identities),
            Err(source) => Err(Error::Authority { folder: identities.folder, source }),
        }
    }

    /// Goes on after a failure, and returns the first.
    fn renew(&self, now: SystemTime) -> Result<(), ca::Error> {
        let authority = self.authority(now)?;
        let renew = |subject: Subject| {
            let leaf = self.leaf(folder_of(&subject));
            if leaf.join("cert.pem").exists() {
                authority.renew(&leaf, Renewal::WhenDue, now).map(drop)
            } else {
                authority.issue(&subject, LEAF_LIFETIME, now)?.write(&leaf)
            }
        };
        subjects().map(renew).fold(Ok(()), Result::and)
    }

    fn authority(&self, now: SystemTime) -> Result<Authority, ca::Error> {
        let folder = self.leaf("ca");
        if folder.join("ca.pem").exists() {
            Authority::open(&folder)
        } else {
            Authority::init(&folder, TRUST_DOMAIN, CA_LIFETIME, now)
        }
    }

    fn leaf(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How the connections of a service are protected, or those of the operator.
    pub(super) fn of(&self, name: &str) -> Result<Security, Error> {
        let folder = self.leaf(name);
        let identity = Identity::from_files(TlsFiles::in_folder(&folder));
        identity.map(Security::Strict).map_err(|source| Error::Identity { folder, source })
    }

    /// Where the operator's certificate is.
    pub(super) fn operator_folder(&self) -> PathBuf {
        self.leaf(OPERATOR_FOLDER)
    }

    /// Renews what is due, without end.
    pub(super) async fn keep(self) {
        let mut looks = interval(RENEW_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let folder = self.folder.clone();
            let renewed = tokio::task::spawn_blocking(move || Self::open(folder, SystemTime::now())).await;
            match renewed {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(%error, "the certificates cannot be renewed; retrying in a minute"),
                Err(error) => tracing::error!(%error, "a defect: renewing the certificates has failed"),
            }
        }
    }
}

fn subjects() -> impl Iterator<Item = Subject> {
    let service = |name: &str| {
        let named = Subject::service(name).and_then(|subject| subject.with_dns("localhost"));
        named.and_then(|subject| subject.with_ip(Ipv4Addr::LOCALHOST.into())).expect("a good name")
    };
    let services = std::iter::once(REGISTRY).chain(Service::ALL.into_iter().map(Service::name));
    services.map(service).chain([Subject::operator(OPERATOR).expect("a good name")])
}

/// The folder within that of the fleet.
fn folder_of(subject: &Subject) -> &str {
    subject.path().strip_prefix("service/").unwrap_or(OPERATOR_FOLDER)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_cannot_be_renewed_does_not_keep_the_others_from_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        Identities::open(folder.path().to_owned(), now).expect("made");
        let tls = Identities { folder: folder.path().to_owned() };
        let cert = |name| fs::read_to_string(tls.leaf(name).join("cert.pem")).expect(name);
        let before = ["registry", "query", OPERATOR_FOLDER].map(cert);
        fs::write(tls.leaf("customer").join("key.pem"), "damaged").expect("written");
        let failed = tls.renew(now + LEAF_LIFETIME * 3 / 4).expect_err("damaged").to_string();
        assert!(failed.contains("customer"), "{failed}");
        for (name, before) in ["registry", "query", OPERATOR_FOLDER].into_iter().zip(before) {
            assert_ne!(cert(name), before, "{name}");
        }
    }
}
