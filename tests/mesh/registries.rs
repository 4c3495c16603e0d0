//! Registries of a list that know nothing of each other are one mesh, whichever is down, and whenever it returns.

use std::{net::SocketAddr, time::Duration};

use meshwork::{
    Mesh,
    contract::meshwork::registry::v1::{
        InstanceStatus, ListInstancesRequest, registry_service_client::RegistryServiceClient,
    },
    server::{self, Server},
};
use meshwork_process::Listener;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::shop::STUCK;

const SERVICE: &str = "greeter";

/// A registry in this process; without its state it comes back on its address.
struct Registry {
    address: SocketAddr,
    task: JoinHandle<Result<(), server::Error>>,
}

impl Registry {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let listener = Listener::new(listener).expect("bound");
        let address = listener.address();
        let mut config = meshwork_registry::Config::new(address.to_string());
        config.grace = Duration::from_millis(500);
        Self { address, task: tokio::spawn(meshwork_registry::run(config, listener, std::future::pending())) }
    }

    async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }

    /// The instances that it lists.
    async fn lists(&self) -> Vec<String> {
        let mesh = Mesh::connect(self.address.to_string()).expect("a mesh");
        let request = ListInstancesRequest { service: SERVICE.into(), ..ListInstancesRequest::default() };
        let listed = RegistryServiceClient::new(mesh.to_registry()).list_instances(request).await;
        let mut ids: Vec<String> = listed.map_or(Vec::new(), |listed| {
            listed.into_inner().instances.into_iter().map(|instance| instance.instance_id).collect()
        });
        ids.sort();
        ids
    }

    async fn until_it_lists(&self, ids: &[&str]) {
        let listed = async { while self.lists().await != ids {} };
        if timeout(STUCK, listed).await.is_err() {
            panic!("it lists {:?} and not {ids:?}", self.lists().await);
        }
    }
}

/// An instance, and its view of the mesh.
struct Instance {
    mesh: Mesh,
    stop: CancellationToken,
    task: JoinHandle<Result<(), server::Error>>,
}

impl Instance {
    async fn start(id: &str, registries: &[SocketAddr]) -> Self {
        let mesh = mesh(registries);
        let listener = Listener::new(TcpListener::bind("127.0.0.1:0").await.expect("a port")).expect("bound");
        let config = server::Config {
            instance_id: id.into(),
            lease_ttl: Duration::from_secs(3),
            ..server::Config::new(SERVICE, listener.address().to_string())
        };
        let stop = CancellationToken::new();
        let server = Server::new(config).announce(mesh.clone());
        let task = tokio::spawn(server.serve(listener, stop.clone().cancelled_owned()));
        Self { mesh, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("it left");
        self.mesh.close().await;
    }
}

fn mesh(registries: &[SocketAddr]) -> Mesh {
    Mesh::builder().registries(registries.iter().map(ToString::to_string)).build().expect("a mesh")
}

/// Waits until these are the instances that a process finds.
async fn finds(mesh: &Mesh, ids: &[&str]) {
    let mut endpoints = mesh.endpoints(SERVICE);
    let found = endpoints.wait_for(|set| {
        let serving = set.endpoints.values().filter(|instance| instance.status() == InstanceStatus::Serving);
        let mut found: Vec<&str> = serving.map(|instance| &*instance.instance_id).collect();
        found.sort_unstable();
        found == ids
    });
    if timeout(STUCK, found).await.is_err() {
        panic!("it finds {:?} and not {ids:?}", mesh.endpoints(SERVICE).borrow().endpoints);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_of_a_list_that_was_away_is_one_mesh_with_the_others_again() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (a, b) = (Registry::start(any).await, Registry::start(any).await);
    let list = [a.address, b.address];
    let old = Instance::start("old", &list).await;
    a.until_it_lists(&["old"]).await;
    b.until_it_lists(&["old"]).await;

    let address = a.kill().await;
    let meanwhile = Instance::start("meanwhile", &list).await;
    b.until_it_lists(&["meanwhile", "old"]).await;
    finds(&old.mesh, &["meanwhile", "old"]).await;

    let a = Registry::start(address).await;
    let newcomer = Instance::start("newcomer", &list).await;
    let all = ["meanwhile", "newcomer", "old"];
    for instance in [&old, &meanwhile, &newcomer] {
        finds(&instance.mesh, &all).await;
    }
    // A client that knows only one of them misses nothing.
    for registry in [&a, &b] {
        registry.until_it_lists(&all).await;
        let alone = mesh(&[registry.address]);
        finds(&alone, &all).await;
        alone.close().await;
    }

    old.stop().await;
    let left = ["meanwhile", "newcomer"];
    finds(&newcomer.mesh, &left).await;
    for registry in [&a, &b] {
        registry.until_it_lists(&left).await;
    }
    let address = b.kill().await;
    finds(&newcomer.mesh, &left).await;
    let b = Registry::start(address).await;
    b.until_it_lists(&left).await;
    for instance in [meanwhile, newcomer] {
        instance.stop().await;
    }
    for registry in [a, b] {
        registry.kill().await;
    }
}
