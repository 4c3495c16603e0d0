//! Certificates, and then their authority's key, are replaced under the load of a shop, as `meshwork ca` replaces them.
//!
//! ```text
//!   renew ── rotate: a new CA is trusted ── rotate: it signs ── rotate: it alone is trusted ── the last old certificates have expired
//! ```
//!
//! Certificates last so short that connections end with them: what was connected in the beginning has connected anew in the end. Of
//! that short life processes warn, rightly.

use std::{path::Path, time::Duration};

use meshwork::{
    Mesh,
    identity::{Security, TlsMode},
};
use meshwork_cli::ca::Renewal;
use meshwork_harness::{certificates::Certificates, shop_processes::Programs};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    error::Error,
    found::Found,
    shop::{HOLDERS, Shop, certificates},
};

/// How long certificates last.
const LIFE: Duration = Duration::from_secs(90);
/// Files are looked at every 10 s.
const READ: Duration = Duration::from_secs(12);
/// How long folders must have what a step has brought before `meshwork ca rotate` takes the next one.
const SETTLED: Duration = Duration::from_secs(30);
/// What processes take at least: the renewal, and what each step has brought.
const TAKES: usize = 4;
/// A client that knows nothing of the old CA.
const NEWCOMER: &str = "operator/newcomer";

/// Counts the calls that fail meanwhile.
pub(super) async fn measure(programs: &Programs, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let folder = scratch.join("rotation");
    let mut certificates = Certificates::new(&certificates(&folder))?;
    HOLDERS.iter().try_for_each(|holder| certificates.issue(holder, LIFE))?;
    let shop = Shop::start(programs, &folder, TlsMode::Strict).await?;
    let ended = shop.traffic.during(rotate(&mut certificates)).await?;

    if let Some(process) = shop.has_not_taken(TAKES)? {
        found.turns.failures.add(format!("after the rotation: {process} uses an old certificate or bundle"));
    }
    let registry = shop.registry().address().map(|address| address.to_string());
    let newcomer = Security::Strict(certificates.identity(NEWCOMER)?);
    let newcomer = Mesh::builder().registries(registry).security(newcomer).build()?;
    if let Err(failure) = shop.traffic.try_through(&newcomer).await {
        found.turns.failures.add(format!("after the rotation: {failure}"));
    }
    newcomer.close().await;
    shop.close(&ended, "rotation", found).await
}

async fn rotate(certificates: &mut Certificates) -> Result<(), Error> {
    eprintln!("rotation: new certificates");
    certificates.renew(&HOLDERS, Renewal::Now)?;
    sleep(READ).await;
    let mut old_ones_expire = Instant::now();
    for step in ["a new CA is trusted", "it signs", "it alone is trusted"] {
        eprintln!("rotation: {step}");
        certificates.rotate(&HOLDERS, SETTLED)?;
        certificates.renew(&HOLDERS, Renewal::WhenDue)?;
        if step == "a new CA is trusted" {
            // The old one may have signed once more.
            old_ones_expire = Instant::now() + LIFE;
        }
        sleep(SETTLED.max(READ) + Duration::from_secs(1)).await;
    }
    sleep_until(old_ones_expire).await;
    Ok(())
}
