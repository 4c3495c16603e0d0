//! A service has one store, and acknowledges nothing that it would lose.

use std::{fs, time::Duration};

use clap::Parser as _;
use meshwork::{
    contract::{
        grpc::health::v1::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
        meshwork::registry::v1::InstanceStatus,
    },
    server,
};
use meshwork_cli::args::Cli;
use meshwork_fixture::Engine;
use meshwork_process::Listener;
use meshwork_shop::contract::shop::order::v1::{CreateOrderRequest, OrderState};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::shop::{STUCK, Shop, usd};

impl Shop {
    /// Waits until the registry reports that all instances of a service are `status`, and that there are some.
    async fn until_all_are(&self, service: &str, status: InstanceStatus) {
        let mut endpoints = self.fleet.mesh().endpoints(service);
        let all = endpoints.wait_for(|set| {
            !set.endpoints.is_empty() && set.endpoints.values().all(|instance| instance.status() == status)
        });
        timeout(STUCK, all).await.expect("told in time").expect("the mesh is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_files_are_removed_a_service_acknowledges_nothing_and_says_so_until_they_are_back() {
    let shop = Shop::open(&Engine::Sqlite, 2).await;
    let customer = shop.customer(usd(100_000)).await.customer_id;
    let before = shop.settled_order(&customer, usd(100)).await;
    let files = ["order.db", "order.db-wal", "order.db-shm"].map(|name| shop.home.folder().join(name));
    let elsewhere = shop.home.folder().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    for file in &files {
        fs::rename(file, elsewhere.join(file.file_name().expect("a name"))).expect("moved");
    }

    for _ in 0..20 {
        let request =
            CreateOrderRequest { customer_id: customer.clone(), total: Some(usd(100)), request_id: String::new() };
        let refused = shop.orders.clone().create_order(request).await.expect_err("it would be lost");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    assert!(files.iter().all(|file| !file.exists()), "no instance has made new ones");
    shop.until_all_are("order", InstanceStatus::NotServing).await;
    shop.until_all_are("customer", InstanceStatus::Serving).await;
    shop.until_all_are("query", InstanceStatus::Serving).await;

    for file in &files {
        fs::rename(elsewhere.join(file.file_name().expect("a name")), file).expect("moved back");
    }
    shop.until_all_are("order", InstanceStatus::Serving).await;
    assert_eq!(shop.get_order(&before.order_id).await.state(), OrderState::Approved);
    assert_eq!(shop.settled_order(&customer, usd(100)).await.state(), OrderState::Approved);
    shop.wait_for_credit(&customer, &usd(100_000 - 200)).await;
    shop.fleet.stop().await;
}

/// Another instance of order, on its own database.
struct Stranger {
    address: String,
    instance_id: String,
    store_id: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), server::Error>>,
}

impl Stranger {
    async fn start(shop: &Shop) -> Self {
        let url = format!("sqlite://{}", shop.home.folder().join("another.db").display());
        let store = meshwork_order::open(&url).await.expect("a database");
        let listener = Listener::new(TcpListener::bind("127.0.0.1:0").await.expect("a port")).expect("bound");
        let address = listener.address().to_string();
        let server = server::Config::new("order", &address);
        let instance_id = server.instance_id.clone();
        let (store_id, stop) = (store.outbox().store_id().to_owned(), CancellationToken::new());
        let mesh = shop.fleet.mesh().clone();
        let config = meshwork_order::Config { server, mesh, store, saga_deadline: meshwork_order::SAGA_DEADLINE };
        let task = tokio::spawn(meshwork_order::run(config, listener, stop.clone().cancelled_owned()));
        Self { address, instance_id, store_id, stop, task }
    }

    async fn until_its_health_is(&self, status: ServingStatus) {
        let direct = meshwork_cli::direct::Direct::connect(&self.address, None, None).await.expect("it listens");
        let mut health = HealthClient::with_origin(direct.transport, direct.origin);
        let is_told = async {
            while health.check(HealthCheckRequest::default()).await.expect("told").into_inner().status() != status {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(STUCK, is_told).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_another_store_takes_no_calls_until_an_operator_adopts_its_store() {
    let shop = Shop::open_with(&Engine::Sqlite, 1, |config| config.grace = Duration::ZERO).await;
    let customer = shop.customer(usd(100_000)).await.customer_id;
    let stranger = Stranger::start(&shop).await;
    stranger.until_its_health_is(ServingStatus::NotServing).await;
    // Else every second of them would be an order that the other has.
    for _ in 0..10 {
        let order = shop.settled_order(&customer, usd(100)).await;
        assert_eq!(shop.get_order(&order.order_id).await.state(), OrderState::Approved);
    }
    let ids = |shop: &Shop| shop.fleet.mesh().endpoints("order").borrow().endpoints.keys().cloned().collect::<Vec<_>>();
    let [old] = &ids(&shop)[..] else { panic!("the stranger is in the mesh") };
    assert_ne!(**old, *stranger.instance_id);

    let registry = shop.fleet.registry_url();
    let adopt = ["meshwork", "store", "adopt", "order", &stranger.store_id, "--registry", &registry];
    let adopt = Cli::try_parse_from(adopt).expect("a command line");
    meshwork_cli::run(adopt, CancellationToken::new()).await.expect("adopted");

    stranger.until_its_health_is(ServingStatus::Serving).await;
    let mut endpoints = shop.fleet.mesh().endpoints("order");
    let only_the_stranger = endpoints.wait_for(|set| {
        let serving = set.endpoints.values().filter(|instance| instance.status() == InstanceStatus::Serving);
        serving.map(|instance| &*instance.instance_id).eq([&*stranger.instance_id])
    });
    timeout(STUCK, only_the_stranger).await.expect("told in time").expect("the mesh is there");
    // Readers of the other store's events notice that they are not of this one, although the other's process lives on.
    let instances = shop.fleet.instances();
    for reader in instances.iter().filter(|instance| ["customer", "query"].contains(&&*instance.service)) {
        let direct =
            meshwork_cli::direct::Direct::connect(&reader.address.to_string(), None, None).await.expect("it listens");
        let mut health = HealthClient::with_origin(direct.transport, direct.origin);
        let stopped = async {
            let events = HealthCheckRequest { service: "events/order".into() };
            while health.check(events.clone()).await.expect("told").into_inner().status() != ServingStatus::NotServing {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(STUCK, stopped).await.expect("in time");
    }
    stranger.stop.cancel();
    stranger.task.await.expect("no panic").expect("it left");
    shop.fleet.stop().await;
}
