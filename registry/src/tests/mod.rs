//! The registry through its generated client, mostly without a network; on a paused clock.

mod authorizations;
mod bindings;
mod identities;
mod leases;
mod lines;
mod network;
mod policies;
mod requests;
mod stores;
mod watch;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use meshwork::{
    contract::meshwork::registry::v1::{
        Change, DeregisterRequest, Instance, InstanceStatus, KeepAliveRequest, KeepAliveResponse, Lease, LeaseState,
        RegisterRequest, ResumePoint, SetStatusRequest, Snapshot, WatchRequest, WatchResponse,
        authorization_service_client::AuthorizationServiceClient,
        authorization_service_server::AuthorizationServiceServer, binding_service_client::BindingServiceClient,
        binding_service_server::BindingServiceServer, policy_service_client::PolicyServiceClient,
        policy_service_server::PolicyServiceServer, registry_service_client::RegistryServiceClient,
        store_service_client::StoreServiceClient, store_service_server::StoreServiceServer, watch_response::Event,
    },
    identity::{PeerIdentity, TlsMode},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use crate::{Registry, RegistryServer, backend::Memory, policies::PolicyStore};

/// Far beyond whatever a test waits for; on a paused clock it costs nothing.
const LIMIT: Duration = Duration::from_secs(3600);

type Client = RegistryServiceClient<RegistryServer>;
type StoreClient = StoreServiceClient<StoreServiceServer<Registry>>;
type AuthorizationClient = AuthorizationServiceClient<AuthorizationServiceServer<Registry>>;
type BindingClient = BindingServiceClient<BindingServiceServer<Registry>>;
type PolicyClient = PolicyServiceClient<PolicyServiceServer<Registry>>;

/// A registry in this process.
struct Mesh {
    client: Client,
    policies: PolicyClient,
    stores: StoreClient,
    authorizations: AuthorizationClient,
    bindings: BindingClient,
    draining: CancellationToken,
    time: JoinHandle<std::convert::Infallible>,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.time.abort();
    }
}

impl Mesh {
    fn start() -> Self {
        Self::with_grace(Duration::ZERO)
    }

    fn with_grace(grace: Duration) -> Self {
        Self::with(grace, PolicyStore::default(), TlsMode::Plain)
    }

    fn in_mode(mode: TlsMode) -> Self {
        Self::with(Duration::ZERO, PolicyStore::default(), mode)
    }

    fn with(grace: Duration, policies: PolicyStore, mode: TlsMode) -> Self {
        let memory = Memory::new(grace, policies);
        let draining = CancellationToken::new();
        let registry = Registry::new(Arc::new(memory.clone()), draining.clone(), mode);
        let time = tokio::spawn(async move { memory.keep_time().await });
        let policies = PolicyClient::new(PolicyServiceServer::new(registry.clone()));
        let stores = StoreClient::new(StoreServiceServer::new(registry.clone()));
        let authorizations = AuthorizationClient::new(AuthorizationServiceServer::new(registry.clone()));
        let bindings = BindingClient::new(BindingServiceServer::new(registry.clone()));
        Self {
            client: Client::new(RegistryServer::new(registry)),
            policies,
            stores,
            authorizations,
            bindings,
            draining,
            time,
        }
    }

    /// One that keeps what is set in a file, after its end or that of another.
    async fn restart_in(mode: TlsMode, file: &Path) -> Self {
        Self::with(Duration::ZERO, PolicyStore::open(file).await.expect("the file is not in use"), mode)
    }

    /// Ends it, and returns when nothing of it is left.
    async fn stop(mut self) {
        self.time.abort();
        let _ = (&mut self.time).await;
    }

    async fn register(&mut self, service: &str, id: &str) -> Lease {
        self.client.register(request(service, id)).await.expect("there is room").into_inner()
    }

    async fn register_by(&mut self, caller: &str, service: &str, id: &str) -> Result<Lease, Status> {
        Ok(self.client.register(by(caller, request(service, id))).await?.into_inner())
    }

    async fn set_status(&mut self, lease: &Lease, status: InstanceStatus) -> Result<Lease, Status> {
        let request = SetStatusRequest { lease_id: lease.lease_id.clone(), status: status.into() };
        Ok(self.client.set_status(request).await?.into_inner())
    }

    async fn deregister(&mut self, lease: &Lease) {
        let request = DeregisterRequest { lease_id: lease.lease_id.clone() };
        self.client.deregister(request).await.expect("a lease that is gone is no error");
    }

    async fn watch(&mut self, services: &[&str]) -> Watch {
        self.watch_from(services, None).await
    }

    async fn watch_from(&mut self, services: &[&str], resume_from: Option<ResumePoint>) -> Watch {
        let request = WatchRequest { services: services.iter().map(|&name| name.into()).collect(), resume_from };
        Watch(self.client.watch(request).await.expect("there is room").into_inner())
    }

    async fn keep_alive(&mut self) -> Renewals {
        self.keep_alive_by("").await
    }

    async fn keep_alive_by(&mut self, caller: &str) -> Renewals {
        let (requests, receiver) = mpsc::unbounded_channel();
        let request = by(caller, UnboundedReceiverStream::new(receiver));
        let responses = self.client.keep_alive(request).await.expect("it opens");
        Renewals { requests, responses: responses.into_inner() }
    }
}

/// A request of the caller with this identity, as in `service/order`; empty: an anonymous one.
fn by<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !caller.is_empty() {
        let id = format!("spiffe://shop.test/{caller}").parse().expect(caller);
        request.extensions_mut().insert(PeerIdentity::verified(id));
    }
    request
}

fn request(service: &str, id: &str) -> RegisterRequest {
    let instance = Instance {
        service: service.into(),
        instance_id: id.into(),
        address: "127.0.0.1:7000".into(),
        ..Instance::default()
    };
    RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
}

/// The client's end of a watch.
struct Watch(Streaming<WatchResponse>);

impl Watch {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        timeout(LIMIT, self.0.next()).await.expect("a watch is never silent").expect("a watch ends with an error only")
    }

    async fn response(&mut self) -> WatchResponse {
        self.next().await.expect("the watch goes on")
    }

    async fn event(&mut self) -> Event {
        self.response().await.event.expect("every response carries an event")
    }

    async fn snapshot(&mut self) -> Snapshot {
        match self.event().await {
            Event::Snapshot(snapshot) => snapshot,
            other => panic!("a snapshot was expected, not {other:?}"),
        }
    }

    /// The ids of instances that changed and that left, of the next change.
    async fn change(&mut self) -> (Vec<String>, Vec<String>) {
        match self.event().await {
            Event::Change(change) => ids(change),
            other => panic!("a change was expected, not {other:?}"),
        }
    }
}

fn ids(change: Change) -> (Vec<String>, Vec<String>) {
    let updated = change.updated.into_iter().map(|instance| instance.instance_id).collect();
    (updated, change.removed.into_iter().map(|instance| instance.instance_id).collect())
}

/// Each service of a snapshot: its name, whether it is known, and the ids of its instances.
fn services(snapshot: &Snapshot) -> Vec<(&str, bool, Vec<&str>)> {
    snapshot
        .services
        .iter()
        .map(|s| (s.service.as_str(), s.known, s.instances.iter().map(|i| i.instance_id.as_str()).collect()))
        .collect()
}

fn point(response: &WatchResponse) -> Option<ResumePoint> {
    Some(ResumePoint { epoch: response.epoch.clone(), revision: response.revision })
}

/// The client's end of a KeepAlive.
struct Renewals {
    requests: mpsc::UnboundedSender<KeepAliveRequest>,
    responses: Streaming<KeepAliveResponse>,
}

impl Renewals {
    fn send(&self, lease_id: &str) {
        self.requests.send(KeepAliveRequest { lease_id: lease_id.into() }).expect("the stream is open");
    }

    async fn next(&mut self) -> Option<Result<KeepAliveResponse, Status>> {
        timeout(LIMIT, self.responses.next()).await.expect("every request is answered")
    }

    async fn renew(&mut self, lease: &Lease) -> LeaseState {
        self.send(&lease.lease_id);
        let response = self.next().await.expect("an answer").expect("no error");
        assert_eq!(response.lease_id, lease.lease_id);
        response.state()
    }
}
