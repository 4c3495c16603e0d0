//! A mesh against a registry that a test plays: every watch that is opened is answered by hand.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::*;
use crate::{
    Mesh,
    channel::tests::{
        net::{Host, Net, WHO},
        soon,
    },
    contract::meshwork::registry::v1::{
        Change, Instance, InstanceRef, InstanceStatus, Policy, Progress, ResumePoint, ServiceInstances, Snapshot,
        WatchRequest, WatchResponse, watch_response::Event,
    },
    server::{Config, Server},
};

type Responses = mpsc::UnboundedSender<Result<WatchResponse, Status>>;

mod asked;
mod list;
mod rules;

/// A registry that can only be watched.
struct Registry {
    watches: mpsc::UnboundedReceiver<Watch>,
    task: JoinHandle<()>,
}

/// A watch that a mesh has opened.
struct Watch {
    request: WatchRequest,
    responses: Responses,
}

#[derive(Clone)]
struct Watched(mpsc::UnboundedSender<Watch>);

impl NamedService for Watched {
    const NAME: &'static str = "meshwork.registry.v1.RegistryService";
}

impl Service<http::Request<Body>> for Watched {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().ends_with("/Watch") {
            return Box::pin(async { Ok(Status::unimplemented("it can only be watched").into_http()) });
        }
        let watches = self.0.clone();
        let watch = move |request: Request<WatchRequest>| {
            let (responses, stream) = mpsc::unbounded_channel();
            let opened = watches.send(Watch { request: request.into_inner(), responses });
            async move {
                opened.map_err(|_| Status::unavailable("the test is over"))?;
                Ok(Response::new(UnboundedReceiverStream::new(stream)))
            }
        };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default());
            Ok(grpc.server_streaming(service_fn(watch), request).await)
        })
    }
}

impl Registry {
    fn start(net: &Net, address: &str) -> Self {
        let (watches, opened) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(net.listen(address)).map(Ok);
        let server = Server::new(Config::new("registry", address)).add_service(Watched(watches));
        let task = tokio::spawn(async move {
            server.serve(incoming, std::future::pending()).await.expect("served");
        });
        Self { watches: opened, task }
    }

    async fn watch(&mut self) -> Watch {
        soon(self.watches.recv()).await.expect("the registry is here")
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Watch {
    fn send(&self, epoch: &str, revision: u64, event: Event) {
        let response = WatchResponse { epoch: epoch.into(), revision, event: Some(event) };
        self.responses.send(Ok(response)).expect("the mesh watches");
    }

    /// All of the watched services, each with these instances.
    fn snapshot(&self, epoch: &str, revision: u64, ids: &[&str], provisional: bool) {
        let services = self.request.services.iter().map(|service| ServiceInstances {
            service: service.clone(),
            known: true,
            instances: ids.iter().map(|id| instance(service, id)).collect(),
            policy: None,
            authorization: None,
        });
        self.send(epoch, revision, Event::Snapshot(Snapshot { services: services.collect(), provisional }));
    }

    fn resumes_from(&self) -> Option<(&str, u64)> {
        self.request.resume_from.as_ref().map(|ResumePoint { epoch, revision }| (epoch.as_str(), *revision))
    }
}

fn instance(service: &str, id: &str) -> Instance {
    Instance {
        service: service.into(),
        instance_id: id.into(),
        address: format!("{id}:1"),
        status: InstanceStatus::Serving.into(),
        ..Instance::default()
    }
}

fn mesh(net: &Net) -> Mesh {
    Mesh::builder().registries(["registry:1"]).connector(net.connector()).build().expect("a mesh")
}

async fn ask(mesh: &Mesh, service: &str) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(mesh.channel(service));
    client.ready().await?;
    let path = http::uri::PathAndQuery::from_static(WHO);
    let codec = ProstCodec::<String, String>::default();
    soon(client.unary(Request::new(String::new()), path, codec)).await.map(Response::into_inner)
}

/// Waits until the set has exactly these endpoints.
async fn until(endpoints: &mut latest::Receiver<EndpointSet>, ids: &[&str]) -> EndpointSet {
    let are = |set: &EndpointSet| set.endpoints.keys().map(AsRef::as_ref).eq(ids.iter().copied());
    soon(endpoints.wait_for(are)).await.expect("discovery is here").clone()
}

/// Waits until the policy's timeout is this one.
async fn until_timeout(endpoints: &mut latest::Receiver<EndpointSet>, timeout: Option<Duration>) {
    soon(endpoints.wait_for(|set| set.policy.timeout == timeout)).await.expect("discovery is here");
}

fn policy(timeout: Duration) -> Policy {
    let timeout = timeout.try_into().ok();
    Policy { service: "echo".into(), timeout, ..Policy::default() }
}

/// Waits long enough for anything wrong to happen.
async fn meanwhile() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_follows_the_registry_although_no_call_flows() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;

    let removed = vec![InstanceRef { service: "echo".into(), instance_id: "a".into() }];
    watch.send("e", 2, Event::Change(Change { updated: vec![instance("echo", "b")], removed, ..Change::default() }));

    let set = until(&mut endpoints, &["b"]).await;
    assert!(set.known && set.has_seen("e", 2));
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_services_and_a_new_one_begins_with_a_snapshot() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut echo = mesh.endpoints("echo");
    let watch = registry.watch().await;
    assert_eq!(watch.request.services, ["echo"]);
    watch.snapshot("e", 1, &["a"], false);
    until(&mut echo, &["a"]).await;

    let mut other = mesh.endpoints("other");

    let watch = registry.watch().await;
    assert_eq!(
        (watch.request.services.as_slice(), watch.resumes_from()),
        (["echo".into(), "other".into()].as_slice(), None)
    );
    watch.snapshot("e", 2, &["a"], false);
    until(&mut other, &["a"]).await;
    let _again = mesh.endpoints("echo");
    meanwhile().await;
    assert!(registry.watches.try_recv().is_err(), "a service that is watched opens nothing");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_asked_for_before_the_first_answer_gets_its_snapshot_too() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut echo = mesh.endpoints("echo");
    registry.watch().await.snapshot("e", 1, &["a"], false);
    until(&mut echo, &["a"]).await;
    let mut other = mesh.endpoints("other");
    // The first with both services breaks before it has answered.
    registry.watch().await.responses.send(Err(Status::unavailable("broken"))).expect("watched");
    let watch = registry.watch().await;
    assert_eq!(watch.resumes_from(), None, "nothing is known of the other to resume from");
    watch.snapshot("e", 1, &["a"], false);
    until(&mut other, &["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_is_resumed_where_it_was() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    assert_eq!(watch.resumes_from(), None);
    watch.snapshot("e", 4, &["a"], false);
    watch.send("e", 7, Event::Progress(Progress {}));
    soon(mesh.saw("echo", "e", 7)).await;
    watch.responses.send(Err(Status::unavailable("moved"))).expect("watched");

    let watch = registry.watch().await;

    assert_eq!(watch.resumes_from(), Some(("e", 7)));
    watch.send("e", 8, Event::Change(Change { updated: vec![instance("echo", "b")], ..Change::default() }));
    until(&mut endpoints, &["a", "b"]).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_registry_is_down_the_last_set_stays_and_calls_go_on() {
    let net = Net::default();
    let _a = Host::start(&net, "a:1", "a");
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let channel = mesh.channel("echo");
    registry.watch().await.snapshot("e", 1, &["a"], false);
    assert_eq!(ask(&mesh, "echo").await.expect("answered"), "a");

    registry.kill().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;

    assert_eq!(ask(&mesh, "echo").await.expect("answered"), "a");
    let mut registry = Registry::start(&net, "registry:1");
    let down = Instant::now();
    registry.watch().await;
    assert!(down.elapsed() <= Duration::from_secs(3), "and it is found again soon: {:?}", down.elapsed());
    drop(channel);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_registry_removes_nobody_until_it_knows_who_has_come_back() {
    let net = Net::default();
    let _hosts = [Host::start(&net, "a:1", "a"), Host::start(&net, "b:1", "b")];
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut endpoints = mesh.endpoints("echo");
    let _channel = mesh.channel("echo");
    registry.watch().await.snapshot("e", 9, &["a", "b"], false);
    until(&mut endpoints, &["a", "b"]).await;
    while ask(&mesh, "echo").await.expect("answered") != "b" {}
    let attempts = net.attempts();
    registry.kill().await;

    let mut registry = Registry::start(&net, "registry:1");
    let watch = registry.watch().await;
    watch.snapshot("f", 1, &[], true);
    soon(mesh.saw("echo", "f", 1)).await;
    assert_eq!(endpoints.borrow().endpoints.len(), 2);
    watch.snapshot("f", 2, &["a", "b"], false);
    soon(mesh.saw("echo", "f", 2)).await;
    assert_eq!(endpoints.borrow().endpoints.len(), 2);

    for _ in 0..20 {
        ask(&mesh, "echo").await.expect("answered");
    }
    let registry_connections = 3;
    assert!(net.attempts() <= attempts + registry_connections, "the instances keep their connections");
}

#[tokio::test(start_paused = true)]
async fn progress_marks_keep_a_quiet_watch_alive() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let _endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    for revision in 1..30 {
        watch.send("e", revision, Event::Progress(Progress {}));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(registry.watches.try_recv().is_err(), "it was not opened again");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_starts_without_a_registry_finds_its_services_on_disk() {
    let net = Net::default();
    let folder = tempfile::tempdir().expect("a folder");
    let _a = Host::start(&net, "a:1", "a");
    let built = || {
        let mesh = Mesh::builder().registries(["registry:1"]).connector(net.connector());
        mesh.cache_dir(folder.path()).build().expect("a mesh")
    };
    let mut registry = Registry::start(&net, "registry:1");
    let earlier = built();
    let mut endpoints = earlier.endpoints("echo");
    registry.watch().await.snapshot("e", 1, &["a", "stale"], false);
    until(&mut endpoints, &["a", "stale"]).await;
    soon(earlier.close()).await;
    registry.kill().await;

    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    assert_eq!(ask(&mesh, "echo").await.expect("answered"), "a");

    assert!(!until(&mut endpoints, &["a", "stale"]).await.is_heard());
    let mut registry = Registry::start(&net, "registry:1");
    let watch = registry.watch().await;
    assert_eq!(watch.resumes_from(), None, "the earlier run's point is of no use");
    watch.snapshot("f", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_reaches_running_clients_and_stays_while_the_registry_is_unreachable() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let net = Net::default();
    let folder = tempfile::tempdir().expect("a folder");
    let built = || {
        let mesh = Mesh::builder().registries(["registry:1"]).connector(net.connector());
        mesh.cache_dir(folder.path()).build().expect("a mesh")
    };
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    assert_eq!(endpoints.borrow().policy.timeout, None);

    watch.send("e", 2, Event::Change(Change { policies: vec![policy(TIMEOUT)], ..Change::default() }));

    until_timeout(&mut endpoints, Some(TIMEOUT)).await;
    registry.kill().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(endpoints.borrow().policy.timeout, Some(TIMEOUT), "the registry is unreachable");
    soon(mesh.close()).await;
    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    until_timeout(&mut endpoints, Some(TIMEOUT)).await;
    assert!(!endpoints.borrow().is_heard(), "it was on disk");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_endpoints_tells_what_the_registry_said() {
    let net = Net::default();
    let mesh = mesh(&net);
    let away = ask(&mesh, "echo").await.expect_err("no endpoint is known").message().to_owned();
    assert!(away.contains("none is known; the registry has not answered yet: registry:1 ("), "{away}");
    assert!(away.contains("connection refused"), "{away}");
    let away = ask(&mesh, "echo").await.expect_err("no endpoint is known").message().to_owned();
    assert!(away.contains("the registry does not answer: ") && away.contains("connection refused"), "{away}");

    let mut registry = Registry::start(&net, "registry:1");
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    let services = vec![ServiceInstances { service: "echo".into(), ..ServiceInstances::default() }];
    watch.send("e", 1, Event::Snapshot(Snapshot { services, provisional: false }));
    soon(endpoints.wait_for(|set| set.has_seen("e", 1))).await.expect("discovery is here");
    let unknown = ask(&mesh, "echo").await.expect_err("no endpoint is known").message().to_owned();
    assert!(unknown.contains("the registry knows no such service"), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn what_asking_again_does_not_change_is_told_otherwise_than_a_registry_that_does_not_answer() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut call = std::pin::pin!(ask(&mesh, "echo"));
    let refused = loop {
        tokio::select! {
            answer = &mut call => break answer.expect_err("no endpoint is known"),
            watch = registry.watch() => {
                watch.responses.send(Err(Status::invalid_argument("services: at most 1024"))).expect("it waits");
            }
        }
    };
    let message = refused.message();
    assert!(message.ends_with("; the registry cannot be watched: services: at most 1024"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_is_closed_leaves_no_task_and_no_connection() {
    let net = Net::default();
    let a = Host::start(&net, "a:1", "a");
    let mut registry = Registry::start(&net, "registry:1");
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::builder().registries(["registry:1"]).connector(net.connector()).cache_dir(folder.path());
    let mesh = mesh.build().expect("a mesh");
    let channel = mesh.channel("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a", "nobody"], false);
    assert_eq!(ask(&mesh, "echo").await.expect("answered"), "a");

    soon(mesh.close()).await;

    soon(watch.responses.closed()).await;
    let begin = Instant::now();
    a.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(1), "a connection that stayed would hold it up for 30 s");
    assert!(ask(&mesh, "echo").await.expect_err("closed").message().contains("the mesh is closed"));
    drop(channel);
}

#[tokio::test(start_paused = true)]
async fn a_channel_keeps_its_mesh_and_the_last_handle_ends_it() {
    let net = Net::default();
    let _a = Host::start(&net, "a:1", "a");
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let channel = mesh.channel("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    assert_eq!(ask(&mesh, "echo").await.expect("answered"), "a");
    drop(mesh);
    assert!(timeout(Duration::from_secs(10), watch.responses.closed()).await.is_err(), "the channel needs it");
    drop(channel);
    soon(watch.responses.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn channels_to_one_service_share_its_connections() {
    let net = Net::default();
    let _a = Host::start(&net, "a:1", "a");
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let _one = mesh.channel("echo");
    registry.watch().await.snapshot("e", 1, &["a"], false);
    for _ in 0..5 {
        ask(&mesh, "echo").await.expect("answered");
    }
    assert_eq!(net.attempts(), 2, "one to the registry, one to the instance");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_may_be_as_large_as_all_that_a_registry_admits() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    let labels = [("key".to_owned(), "x".repeat(3000))].into();
    let large =
        |id| Instance { labels: std::collections::HashMap::clone(&labels), ..instance("echo", &format!("i{id}")) };
    let instances = (0..10_000).map(large).collect();
    let echo = ServiceInstances { service: "echo".into(), known: true, instances, policy: None, authorization: None };
    watch.send("e", 1, Event::Snapshot(Snapshot { services: vec![echo], provisional: false }));
    let all = soon(endpoints.wait_for(EndpointSet::is_heard)).await.expect("discovery is here");
    assert_eq!(all.endpoints.len(), 10_000);
}
