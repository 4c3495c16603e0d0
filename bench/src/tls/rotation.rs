//! Certificates, and then their authority, are replaced in the files of a shop under load.
//!
//! ```text
//!   new certificates ── both authorities ── certificates of the new one ── the new one alone ── the last of the old ones has expired
//! ```
//!
//! Certificates last so short that connections end with them: what was connected in the beginning has connected anew in the end.

use std::{path::Path, time::Duration};

use meshwork::{
    Mesh,
    identity::{Security, TlsMode},
};
use meshwork_harness::shop_processes::Programs;
use tokio::time::{Instant, sleep_until};

use super::{
    Error, Found,
    shop::{CLIENT, HOLDERS, Shop, certificates},
};
use crate::certificates::Certificates;

/// How long the first certificates last: the start and the first steps.
const FIRST_LIFE: Duration = Duration::from_secs(120);
/// How long the others last.
const LIFE: Duration = Duration::from_secs(90);

/// Counts the calls that fail meanwhile.
pub(super) async fn measure(programs: &Programs, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let folder = scratch.join("rotation");
    let (old, new) = (Certificates::new(&certificates(&folder)), Certificates::new(&certificates(&folder)));
    let both = old.bundle() + &new.bundle();
    issue(&old, FIRST_LIFE, &old.bundle())?;
    let shop = Shop::start(programs, &folder, TlsMode::Strict).await?;
    let ended = shop
        .traffic
        .during(async {
            say("new certificates");
            issue(&old, LIFE, &old.bundle())?;
            let expired = Instant::now() + LIFE;
            shop.taken(1).await?;
            say("both authorities");
            trust(&old, &both)?;
            shop.taken(2).await?;
            say("certificates of the new authority");
            issue(&new, LIFE, &both)?;
            shop.taken(3).await?;
            say("the new authority alone");
            trust(&new, &new.bundle())?;
            shop.taken(4).await?;
            say("the last certificates of the old authority expire");
            sleep_until(expired).await;
            Ok(())
        })
        .await?;
    // Whoever knows the new authority alone.
    let fresh = Certificates::identity(&new, CLIENT)?;
    let registry = shop.registry().address().map(|address| address.to_string());
    let fresh = Mesh::builder().registries(registry).security(Security::Strict(fresh)).build()?;
    if let Err(failure) = shop.traffic.try_through(&fresh).await {
        found.turns.failures.add(format!("after the rotation: {failure}"));
    }
    fresh.close().await;
    shop.close(&ended, "rotation", found).await
}

fn issue(by: &Certificates, life: Duration, bundle: &str) -> Result<(), Error> {
    HOLDERS.iter().try_for_each(|holder| Ok(by.issue_for(holder, life, bundle.to_owned())?))
}

fn trust(certificates: &Certificates, bundle: &str) -> Result<(), Error> {
    HOLDERS.iter().try_for_each(|holder| Ok(certificates.trust(holder, bundle)?))
}

fn say(step: &str) {
    eprintln!("rotation: {step}");
}
