//! How each instance stands, asked at its own address: what it reads, and what each registry lists.

use std::collections::BTreeSet;

use meshwork::contract::meshwork::{
    event::v1::{ListSubscriptionsRequest, SubscriptionState, operations_service_client::OperationsServiceClient},
    registry::v1::{ListInstancesRequest, registry_service_client::RegistryServiceClient},
};
use meshwork_cli::direct::Direct;
use meshwork_harness::shop_processes::{Instance, ShopProcesses};
use tonic::{Code, Status};

use super::evidence::{Listing, Subscription};

/// The most instances that the contract lists in a page; there are a handful.
const PAGE_SIZE: i32 = 1000;

/// The subscriptions of all instances.
pub(super) async fn subscriptions(shop: &ShopProcesses) -> Result<Vec<Subscription>, Status> {
    let mut subscriptions = Vec::new();
    for instance in shop.services() {
        let Direct { transport, origin } = connect(instance, shop).await?;
        let mut client = OperationsServiceClient::with_origin(transport, origin);
        let told = match client.list_subscriptions(ListSubscriptionsRequest {}).await {
            Ok(told) => told.into_inner(),
            // Meshwork 0.1 says nothing of them.
            Err(status) if status.code() == Code::Unimplemented => continue,
            Err(status) => return Err(status),
        };
        for subscription in told.subscriptions {
            let moves = subscription.state() == SubscriptionState::Running && !subscription.unhealthy;
            let state = subscription.state().as_str_name();
            let problem = if moves { String::new() } else { format!("{state}: {}", subscription.problem) };
            let (instance, source) = (instance.name().to_owned(), subscription.source);
            subscriptions.push(Subscription { instance, source, problem });
        }
    }
    Ok(subscriptions)
}

/// What each registry lists.
pub(super) async fn listings(shop: &ShopProcesses) -> Result<Vec<Listing>, Status> {
    let running: BTreeSet<String> = shop
        .services()
        .iter()
        .filter_map(|instance| instance.advertised())
        .map(|address| address.to_string())
        .collect();
    let mut listings = Vec::new();
    for registry in shop.registries() {
        let Direct { transport, origin } = connect(registry, shop).await?;
        let mut client = RegistryServiceClient::with_origin(transport, origin);
        let mut listed = BTreeSet::new();
        for service in ["customer", "order", "query"] {
            let list = ListInstancesRequest { service: service.into(), page_size: PAGE_SIZE, ..Default::default() };
            match client.list_instances(list).await {
                Ok(page) => listed.extend(page.into_inner().instances.into_iter().map(|instance| instance.address)),
                // No instance has registered there.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        listings.push(Listing { registry: registry.name().to_owned(), listed, running: running.clone() });
    }
    Ok(listings)
}

async fn connect(instance: &Instance, shop: &ShopProcesses) -> Result<Direct, Status> {
    let unreachable = |why: String| Status::unavailable(format!("{} cannot be reached: {why}", instance.name()));
    let address = instance.address().ok_or_else(|| unreachable("it does not run".to_owned()))?;
    let connected = Direct::connect(&address.to_string(), shop.identity(), Some(instance.service())).await;
    connected.map_err(|error| unreachable(error.to_string()))
}
