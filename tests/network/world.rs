//! The hosts of a simulation.

use std::{collections::BTreeSet, future::pending, net::Ipv4Addr, time::Duration};

use futures_util::{Stream, stream};
use meshwork::{
    Mesh,
    channel::{Channel, Connector},
    contract::grpc::health::v1::{HealthCheckRequest, health_client::HealthClient},
    discovery::EndpointSet,
    server::{Config, Server},
};
use tokio::{
    sync::watch,
    time::{Instant, interval, timeout},
};
use tonic::{Code, Request, Status};
use turmoil::{
    Builder, Sim,
    net::{TcpListener, TcpStream},
};

/// The one service of these worlds. It has no rpc of its own: what is called is its health, and every answer says which
/// instance gave it.
pub(crate) const SERVICE: &str = "echo";
/// Its instances, which are also the names of their hosts.
pub(crate) const ONE: &str = "one";
pub(crate) const TWO: &str = "two";
pub(crate) const REGISTRY: &str = "registry";
pub(crate) const CLIENT: &str = "client";

/// A call's deadline. Long against any latency here, short against what finds a dead connection.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// Between two calls.
const PACE: Duration = Duration::from_millis(50);
/// Far beyond whatever a test waits for; it is simulated time.
const LIMIT: Duration = Duration::from_secs(120);
const PORT: u16 = 7600;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// A simulated network, as fast as a real one unless `change` says otherwise.
pub(crate) fn simulation(change: impl FnOnce(&mut Builder)) -> Sim<'static> {
    let mut builder = Builder::new();
    builder
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(3))
        // Segments of a connection that were not read yet: more than HTTP/2's windows let through.
        .tcp_capacity(4096);
    change(&mut builder);
    builder.build()
}

/// Hosts the registry.
pub(crate) fn registry(sim: &mut Sim<'static>) {
    sim.host(REGISTRY, || async {
        let config =
            meshwork_registry::Config { grace: Duration::ZERO, ..meshwork_registry::Config::new("registry:7600") };
        meshwork_registry::run(config, incoming().await?, pending()).await?;
        Ok(())
    });
}

/// Hosts an instance, which starts once `go` says so.
pub(crate) fn instance(sim: &mut Sim<'static>, name: &'static str, go: &watch::Receiver<bool>) {
    let go = go.clone();
    sim.host(name, move || {
        let mut go = go.clone();
        async move {
            go.wait_for(|go| *go).await?;
            let config = Config { instance_id: name.into(), ..Config::new(SERVICE, format!("{name}:{PORT}")) };
            Server::new(config).announce(mesh()?).serve(incoming().await?, pending()).await?;
            Ok(())
        }
    });
}

/// A signal that has been given.
pub(crate) fn at_once() -> watch::Receiver<bool> {
    watch::channel(true).1
}

fn mesh() -> Result<Mesh, meshwork::MeshError> {
    let connector = Connector::new(|target| async move { TcpStream::connect(&*target.address).await });
    Mesh::builder().registries(["registry:7600"]).connector(connector).build()
}

async fn incoming() -> std::io::Result<impl Stream<Item = std::io::Result<TcpStream>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    Ok(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    }))
}

/// What the client sees, and how its calls go.
#[derive(Clone)]
pub(crate) struct Client {
    mesh: Mesh,
    health: HealthClient<Channel>,
}

impl Client {
    /// A client that sees these instances.
    pub(crate) async fn seeing(instances: &[&str]) -> Result<Self, Failure> {
        let mesh = mesh()?;
        let client = Self { health: HealthClient::new(mesh.channel(SERVICE)), mesh };
        client.until_seen(instances).await;
        Ok(client)
    }

    /// Waits until these instances are the ones that are known.
    pub(crate) async fn until_seen(&self, instances: &[&str]) {
        let wanted: BTreeSet<_> = instances.iter().copied().collect();
        let mut endpoints = self.mesh.endpoints(SERVICE);
        let seen = endpoints.wait_for(|set| names(set) == wanted);
        drop(timeout(LIMIT, seen).await.expect("seen in time").expect("discovery runs"));
    }

    /// Whether these instances are the ones that are known now.
    pub(crate) fn sees(&self, instances: &[&str]) -> bool {
        names(&self.mesh.endpoints(SERVICE).borrow()) == instances.iter().copied().collect()
    }

    /// Calls, and says which instance has answered.
    pub(crate) async fn call(&mut self) -> Result<String, Status> {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(DEADLINE);
        let begin = Instant::now();
        let answer = self.health.check(request).await;
        assert!(begin.elapsed() <= DEADLINE + Duration::from_millis(50), "a call took {:?}", begin.elapsed());
        let answer = answer?;
        Ok(answer.metadata().get("meshwork-instance").expect("on every answer").to_str().expect("text").to_owned())
    }

    /// Calls at a steady pace, for as long as `done` takes; which instances have answered, and how many calls failed.
    pub(crate) async fn call_until(&self, done: impl Future<Output = ()>) -> (BTreeSet<String>, usize) {
        let (mut answered, mut failed) = (BTreeSet::new(), 0);
        let mut calls = tokio::task::JoinSet::new();
        let (mut pace, mut done) = (interval(PACE), std::pin::pin!(timeout(LIMIT, done)));
        loop {
            tokio::select! {
                done = &mut done => break done.expect("done in time"),
                _ = pace.tick() => {
                    let mut client = self.clone();
                    calls.spawn_local(async move { client.call().await });
                }
            }
        }
        while let Some(call) = calls.join_next().await {
            match call.expect("no panic") {
                Ok(instance) => drop(answered.insert(instance)),
                Err(status) => {
                    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status}");
                    failed += 1;
                }
            }
        }
        (answered, failed)
    }

    /// Calls, two at a time, until both instances have answered. One at a time would not do: latencies are steps here, and
    /// of two equal instances the one that was slow an hour ago is still slower by a hair.
    pub(crate) async fn until_both_answer(&self) {
        let both = async {
            let mut answered = BTreeSet::new();
            while answered.len() < 2 {
                let (mut one, mut other) = (self.clone(), self.clone());
                let (one, other) = tokio::join!(one.call(), other.call());
                answered.extend([one, other].into_iter().flatten());
            }
        };
        timeout(LIMIT, both).await.expect("both are used in time");
    }
}

fn names(set: &EndpointSet) -> BTreeSet<&str> {
    set.endpoints.keys().map(AsRef::as_ref).collect()
}
