//! The certificates of a shop in strict mode, renewed all the time: one for each service, and one for the operator.

use std::{path::Path, sync::Arc, time::Duration};

use meshwork_cli::ca;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{error::Error, tls::OPERATOR};
use crate::certificates::Certificates;

/// Whose certificates they are.
const HOLDERS: [&str; 5] = ["service/registry", "service/customer", "service/order", "service/query", OPERATOR];
/// Short, so that connections end with their certificates within a run.
const LIFETIME: Duration = Duration::from_secs(240);
/// Between the renewals of all certificates.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// Renews certificates until it is dropped.
pub(super) struct Renewal {
    _task: AbortOnDropHandle<()>,
}

impl Renewal {
    /// Of certificates that it makes in `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self, Error> {
        let certificates = Certificates::new(folder)?;
        HOLDERS.iter().try_for_each(|holder| certificates.issue(holder, LIFETIME))?;
        Ok(Self { _task: AbortOnDropHandle::new(tokio::spawn(keep(Arc::new(certificates)))) })
    }
}

/// Renews all, again and again: each reader finds a new key, certificate and bundle in the middle of its work.
async fn keep(certificates: Arc<Certificates>) {
    loop {
        sleep(RENEW_EVERY).await;
        let certificates = certificates.clone();
        let renewed = spawn_blocking(move || certificates.renew(&HOLDERS, ca::Renewal::Now)).await;
        if let Err(error) = renewed.expect("it does not panic") {
            eprintln!("the certificates cannot be renewed: {error}");
        }
    }
}
