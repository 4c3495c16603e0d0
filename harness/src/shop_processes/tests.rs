//! Shops whose processes are this test binary, once for each instance.

use std::{path::Path, process::ExitCode, time::Duration};

use meshwork::contract::meshwork::registry::v1::ListInstancesRequest;
use meshwork_shop::contract::shop::{
    customer::v1::{CreateCustomerRequest, GetCustomerRequest, customer_service_client::CustomerServiceClient},
    r#type::v1::Money,
};
use tokio::time::timeout;

use super::*;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Not a test, but what runs in the processes of the others.
#[tokio::test(flavor = "multi_thread")]
async fn service_process() -> ExitCode {
    serve().await
}

fn programs() -> Programs {
    Programs::Test {
        path: std::env::current_exe().expect("this program"),
        test: "shop_processes::tests::service_process",
    }
}

async fn sqlite(folder: &Path) -> ShopProcesses {
    start(folder, Tls::Off).await
}

async fn start(folder: &Path, tls: Tls) -> ShopProcesses {
    let (store, replicas) = (Store::Sqlite, Replicas::all(1));
    let config = Config { folder: folder.to_path_buf(), store, replicas, fronted: false, registries: 1, tls };
    timeout(LIMIT, ShopProcesses::start(&programs(), &config)).await.expect("in time").expect("started")
}

fn pids(shop: &ShopProcesses) -> Vec<u32> {
    shop.registries.iter().chain(&shop.services).filter_map(|instance| instance.pid()).collect()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_that_is_started_again_has_its_data_and_another_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    let mut customers = CustomerServiceClient::new(shop.mesh().channel("customer"));
    let credit_limit = Some(Money { currency_code: "USD".into(), units: 10, nanos: 0 });
    let create = CreateCustomerRequest { name: "Ada".into(), credit_limit, ..Default::default() };
    let customer_id = customers.create_customer(create).await.expect("created").into_inner().customer_id;

    let customer = shop.instances("customer")[0].clone();
    let before = customer.address();
    customer.kill();
    assert_eq!(customer.address(), None);
    customer.start().await.expect("started again");
    assert_ne!(customer.address(), before);
    let get = || {
        let (mut customers, customer_id) = (customers.clone(), customer_id.clone());
        async move { customers.get_customer(GetCustomerRequest { customer_id }).await }
    };
    // The killed instance stays listed for a lease.
    let found = timeout(LIMIT, async { while get().await.is_err() {} }).await;
    assert!(found.is_ok());
    shop.close().await.expect("all ended in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_ends_in_order_once_it_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    shop.instances("order")[0].pause().expect("it runs");
    shop.instances("order")[0].resume().expect("it is there");
    let pids = pids(&shop);
    assert_eq!(pids.len(), 4);
    shop.close().await.expect("all ended in order");
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_shop_leaves_no_process_behind_even_a_stopped_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    shop.instances("query")[0].pause().expect("it runs");
    let pids = pids(&shop);
    assert!(pids.iter().copied().all(lives));
    drop(shop);
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_strict_mode_takes_orders_over_identities_and_no_call_in_plain_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = start(folder.path(), Tls::Renewed).await;
    let list = || ListInstancesRequest { service: "order".into(), ..ListInstancesRequest::default() };
    let told = shop.mesh().registry().list_instances(list()).await.expect("with a certificate").into_inner();
    let identities: Vec<_> = told.instances.into_iter().map(|instance| instance.identity).collect();
    assert_eq!(identities, ["spiffe://run.test/service/order"]);
    shop.command().run(&["instances", "order"]).await.expect("the operator has a certificate");
    let address = shop.registries()[0].address().expect("it runs").to_string();
    let stranger = Mesh::connect(&address).expect("an address");
    let refused = timeout(LIMIT, stranger.registry().list_instances(list())).await.expect("in time");
    let refused = refused.expect_err("in plain text").message().to_owned();
    assert!(refused.contains("this port takes TLS connections only"), "{refused}");
    shop.close().await.expect("in order");
}
