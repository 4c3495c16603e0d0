//! The certificates of a shop in strict mode: an authority of its own, and a folder for each service and for the operator.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork::identity::REGISTRY;
use meshwork_cli::ca::{Authority, CA_LIFETIME, Renewal, Subject};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{error::Error, tls::OPERATOR};

/// Short, so that connections end with their certificates within a run.
const LIFETIME: Duration = Duration::from_secs(240);
/// Between the renewals of all certificates.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// The certificates, renewed until they are dropped.
pub(super) struct Certificates {
    _renewal: AbortOnDropHandle<()>,
}

impl Certificates {
    /// Makes them in `folder`.
    pub(super) async fn make(folder: &Path) -> Result<Self, Error> {
        let subjects: Vec<Subject> = [format!("service/{REGISTRY}"), OPERATOR.to_owned()]
            .into_iter()
            .chain(["customer", "order", "query"].map(|name| format!("service/{name}")))
            .map(|subject| subject.parse().expect("a good name"))
            .collect();
        let leaves: Vec<PathBuf> = subjects.iter().map(|subject| folder.join(subject.path())).collect();
        let now = SystemTime::now();
        let authority = Authority::init(&folder.join("ca"), "chaos.test", CA_LIFETIME, now)?;
        for (subject, leaf) in subjects.iter().zip(&leaves) {
            authority.issue(subject, LIFETIME, now)?.write(leaf)?;
        }
        let renewal = AbortOnDropHandle::new(tokio::spawn(keep(folder.join("ca"), leaves)));
        Ok(Self { _renewal: renewal })
    }
}

/// Renews all, again and again: each reader finds a new key, certificate and bundle in the middle of its work.
async fn keep(authority: PathBuf, leaves: Vec<PathBuf>) {
    loop {
        sleep(RENEW_EVERY).await;
        let (authority, leaves) = (authority.clone(), leaves.clone());
        let renewed = spawn_blocking(move || renew(&authority, &leaves)).await;
        if let Err(error) = renewed.expect("it does not panic") {
            eprintln!("the certificates cannot be renewed: {error}");
        }
    }
}

fn renew(authority: &Path, leaves: &[PathBuf]) -> Result<(), meshwork_cli::ca::Error> {
    let authority = Authority::open(authority)?;
    leaves.iter().try_for_each(|leaf| authority.renew(leaf, Renewal::Now, SystemTime::now()).map(drop))
}
