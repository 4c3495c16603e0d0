//! A shop under load goes from plain text to permissive mode, and then to strict mode, one process at a time.
//!
//! In each of the two steps the registry is restarted first, then the instances, and then the load gets new connections: a permissive
//! process takes plain text, and encrypts to whoever has an identity, so that both neighbours of a step can be there at once.

use std::{path::Path, sync::Arc};

use meshwork::identity::TlsMode;
use meshwork_harness::{
    certificates::{AN_HOUR, Certificates},
    shop_processes::{Instance, Programs, Protection},
};
use meshwork_shop::contract::shop::customer::v1::{GetCustomerRequest, customer_service_client::CustomerServiceClient};
use tokio::time::sleep;

use super::{
    error::Error,
    found::Found,
    shop::{HOLDERS, Shop, certificates},
    traffic::CALL_LIMIT,
};
use crate::echo::endpoint;

/// Counts the calls that fail meanwhile.
pub(super) async fn measure(programs: &Programs, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let folder = scratch.join("migration");
    let certificates = Certificates::new(&certificates(&folder))?;
    HOLDERS.iter().try_for_each(|holder| certificates.issue(holder, AN_HOUR))?;
    let mut shop = Shop::start(programs, &folder, TlsMode::Plain).await?;
    let mut ended = Vec::new();
    for mode in [TlsMode::Permissive, TlsMode::Strict] {
        let protection = shop.protection(mode);
        ended.extend(shop.traffic.during(roll(&shop, &protection)).await?);
        let before = shop.join_again(mode)?;
        shop.traffic.move_to(shop.mesh());
        ended.extend(
            shop.traffic
                .during(async {
                    sleep(CALL_LIMIT).await;
                    Ok(())
                })
                .await?,
        );
        // Its last calls have ended.
        before.close().await;
    }
    for process in shop.services() {
        if takes_plain_text(process).await {
            found.turns.failures.add(format!("{} takes plain text in the end", process.name()));
        }
    }
    shop.close(&ended, "migration", found).await
}

/// Restarts the registry, and then the instances one after the other, each once the one before it serves.
async fn roll(shop: &Shop, protection: &Protection) -> Result<(), Error> {
    eprintln!("migration: {}", protection.mode.name());
    let mut moved: Vec<&Arc<Instance>> = match protection.mode {
        TlsMode::Plain | TlsMode::Permissive => Vec::new(),
        TlsMode::Strict => shop.services().iter().collect(),
    };
    restart(shop.registry(), protection).await?;
    shop.listed(&moved).await?;
    for instance in shop.services() {
        restart(instance, protection).await?;
        moved.push(instance);
        shop.listed(&moved).await?;
    }
    Ok(())
}

async fn restart(process: &Instance, protection: &Protection) -> Result<(), Error> {
    process.protect(protection);
    process.terminate().await?;
    process.start().await?;
    Ok(())
}

/// Whether a call in plain text reaches a process's services. Any answer shows that it does.
async fn takes_plain_text(process: &Instance) -> bool {
    let Some(address) = process.address() else { return false };
    let Ok(channel) = endpoint(&address.to_string()).connect().await else { return false };
    let answer = CustomerServiceClient::new(channel).get_customer(GetCustomerRequest::default()).await;
    answer.map_or_else(|status| status.metadata().contains_key(meshwork::headers::INSTANCE.as_str()), |_| true)
}
