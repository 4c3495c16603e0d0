//! A client that starts while the registry is unreachable can call the instances that others saw last.

use std::time::Duration;

use clap::Parser;
use meshwork::contract::meshwork::registry::v1::{InstanceStatus, ServiceInstances};
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_process::InstanceArgs;
use meshwork_shop::contract::shop::customer::v1::{GetCustomerRequest, customer_service_client::CustomerServiceClient};
use prost::Message as _;

use crate::shop::{STUCK, Shop, usd};

/// A separate process, as far as its flags go.
#[derive(Parser)]
#[command(disable_version_flag = true)]
struct Client {
    #[command(flatten)]
    instance: InstanceArgs,
}

on_both_stores!(flavor = "multi_thread"; a_client_that_starts_without_a_registry_reaches_the_instances_last_seen);

async fn a_client_that_starts_without_a_registry_reaches_the_instances_last_seen(engine: Engine) {
    let shop = Shop::open_with(&engine, 1, |config| config.restart_after = Duration::from_secs(600)).await;
    let customer = shop.customer(usd(1500)).await;
    let folder = shop.home.folder().join("endpoints");
    let file = folder.join("customer.endpoints");
    let is_serving = |bytes: Vec<u8>| {
        let set = ServiceInstances::decode_length_delimited(bytes.as_slice()).expect("replaced whole");
        set.instances.iter().any(|instance| instance.status() == InstanceStatus::Serving)
    };
    let written = async {
        while !std::fs::read(&file).is_ok_and(is_serving) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(STUCK, written).await.expect("written soon after it was seen");
    shop.fleet.abort_registry().await;

    let cache_dir = folder.to_str().expect("text");
    let flags = ["client", "--registry", &shop.fleet.registry_url(), "--cache-dir", cache_dir];
    let mesh = Client::parse_from(flags).instance.mesh("client").expect("a mesh");
    let request = GetCustomerRequest { customer_id: customer.customer_id.clone() };
    let found = CustomerServiceClient::new(mesh.channel("customer")).get_customer(request).await.expect("answered");
    assert_eq!(found.into_inner().customer_id, customer.customer_id);
    assert!(!mesh.endpoints("customer").borrow().is_heard(), "the registry has not said a word");
    mesh.close().await;
    shop.fleet.kill().await;
}
