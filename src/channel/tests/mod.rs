//! The channel against servers in the same process: connections are in-memory pipes, and the clock is paused.

mod deadlines;
mod ejection;
mod endpoints;
mod failures;
mod headers;
mod hedging;
mod lifetime;
mod metrics;
pub(crate) mod net;
mod places;
mod refusals;
mod retries;
mod scripted;
mod wire;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::*;
use crate::{
    contract::meshwork::registry::v1::{IdempotencyLevel, IdempotentMethod, Instance, InstanceStatus},
    identity::Security,
};
use net::{Host, Net};

/// Nothing in these tests takes longer by its promise; on a paused clock it costs no time.
const SOON: Duration = Duration::from_secs(600);

/// What a test must not wait for in vain.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    timeout(SOON, work).await.expect("it should have ended by now")
}

/// A channel to the service `echo`, whose endpoints the test says.
struct Bench {
    net: Net,
    context: ChannelContext,
    endpoints: watch::Sender<EndpointSet>,
    channel: Channel,
}

fn idempotent(path: &str, level: IdempotencyLevel, unary: bool) -> IdempotentMethod {
    IdempotentMethod { method: path[1..].into(), idempotency_level: level.into(), unary }
}

fn instance(id: &str, status: InstanceStatus) -> Instance {
    Instance {
        service: "echo".into(),
        instance_id: id.into(),
        address: format!("{id}:1"),
        status: status.into(),
        idempotent_methods: vec![
            idempotent(net::READ, IdempotencyLevel::NoSideEffects, true),
            idempotent(net::WRITE, IdempotencyLevel::Idempotent, true),
            idempotent(net::FOLLOW, IdempotencyLevel::NoSideEffects, false),
        ],
        takes_pings: true,
        ..Instance::default()
    }
}

/// An instance that lets nothing be sent again.
fn undeclared(id: &str) -> Instance {
    Instance { idempotent_methods: Vec::new(), ..instance(id, InstanceStatus::Serving) }
}

fn set(instances: impl IntoIterator<Item = Instance>) -> EndpointSet {
    let endpoints: BTreeMap<_, _> =
        instances.into_iter().map(|instance| (instance.instance_id.as_str().into(), Arc::new(instance))).collect();
    EndpointSet { endpoints: Arc::new(endpoints), known: true, ..EndpointSet::unknown("echo") }
}

impl Bench {
    /// A channel to instances that are called like their hosts: `a` is at `a:1`.
    fn new(ids: &[&str]) -> Self {
        Self::at(Locality::default(), ids)
    }

    /// The same for a client in that place.
    fn at(locality: Locality, ids: &[&str]) -> Self {
        let net = Net::default();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let context = ChannelContext { locality, connector: net.connector(), security: Security::Plain, tasks, stop };
        let (endpoints, receiver) = watch::channel(EndpointSet::unknown("echo"));
        let explain = || Some("the registry is in a test".to_owned());
        let channel = Channel::internal(Shared::discovered("echo", receiver, explain, &context));
        let bench = Self { net, context, endpoints, channel };
        bench.set(ids);
        bench
    }

    fn set(&self, ids: &[&str]) {
        self.endpoints.send_replace(set(ids.iter().map(|id| instance(id, InstanceStatus::Serving))));
    }

    /// A Meshwork server that is the instance of that name.
    fn host(&self, id: &str) -> Host {
        Host::start(&self.net, &format!("{id}:1"), id)
    }

    async fn ask(&self, method: &'static str) -> Result<Response<String>, Status> {
        self.send(method, Request::new("text".into())).await
    }

    async fn send(&self, method: &'static str, request: Request<String>) -> Result<Response<String>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        soon(client.unary(request, PathAndQuery::from_static(method), ProstCodec::default())).await
    }

    /// Echoes a stream of texts.
    async fn stream(
        &self,
        method: &'static str,
        request: Request<impl futures_util::Stream<Item = String> + Send + 'static>,
    ) -> Result<Streaming<String>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let codec = ProstCodec::<String, String>::default();
        soon(client.streaming(request, PathAndQuery::from_static(method), codec)).await.map(Response::into_inner)
    }

    /// The instance that answers a call.
    async fn who(&self) -> String {
        self.ask(net::WHO).await.expect("answered").into_inner()
    }

    /// How often each instance answers.
    async fn answers(&self, calls: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..calls {
            *answers.entry(self.who().await).or_default() += 1;
        }
        answers
    }

    /// Calls until an instance answers.
    async fn until_answered_by(&self, id: &str) {
        soon(async {
            while self.who().await != id {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// Which instance a status says it is about.
fn told_instance(status: &Status) -> Option<&str> {
    status.metadata().get("meshwork-instance")?.to_str().ok()
}
