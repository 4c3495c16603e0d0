//! A registry in the same process, for tests: its state is changed by the test, and waited for.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::contract::meshwork::registry::v1::{
    registry_service_client::RegistryServiceClient,
    registry_service_server::{RegistryService, RegistryServiceServer},
    *,
};

/// The time of the leases that it gives.
pub(crate) const TTL: Duration = Duration::from_secs(9);

/// What the fake registry holds; tests change it, and wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) away: bool,
    /// Answers no renewal.
    pub(crate) silent: bool,
    /// Refuses every registration, and the status SERVING, with this.
    pub(crate) refuses: Option<(Code, &'static str)>,
    /// Answers every renewal with this number instead, such as `Unknown` or one of a later contract.
    pub(crate) answers: Option<i32>,
    pub(crate) leases: BTreeMap<String, Instance>,
    /// What the last registration has said.
    pub(crate) methods: Vec<String>,
    pub(crate) fenced: Vec<String>,
    pub(crate) registrations: u64,
    /// The holder and the number of each registration that arrived.
    pub(crate) attempts: Vec<(String, u64)>,
    /// Whether each of them says that it was refused before.
    pub(crate) refused_before: Vec<bool>,
    pub(crate) refusals: u64,
    pub(crate) streams: u64,
    pub(crate) renewals: u64,
    pub(crate) revision: u64,
    /// Streams of an earlier life are cut.
    pub(crate) life: u64,
}

impl State {
    /// The statuses of the instances that it has.
    pub(crate) fn statuses(&self) -> Vec<InstanceStatus> {
        self.leases.values().map(Instance::status).collect()
    }
}

#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Arc<watch::Sender<State>>);

impl Fake {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(watch::channel(state).0))
    }

    pub(crate) fn client(&self) -> RegistryServiceClient<RegistryServiceServer<Self>> {
        RegistryServiceClient::new(RegistryServiceServer::new(self.clone()))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }

    /// Waits for a condition, which on a paused clock takes no time.
    pub(crate) async fn until(&self, condition: impl FnMut(&State) -> bool) -> State {
        let mut seen = self.0.subscribe();
        let seen = timeout(Duration::from_secs(3600), seen.wait_for(condition)).await.expect("within an hour");
        seen.expect("the sender is here").clone()
    }

    /// What an rpc begins with.
    fn check(&self) -> Result<(), Status> {
        if self.0.borrow().away { Err(Status::unavailable("away")) } else { Ok(()) }
    }

    fn renew(&self, lease_id: &str) -> LeaseState {
        self.change(|state| state.renewals += 1);
        let state = self.0.borrow();
        match state.leases.contains_key(lease_id) {
            _ if state.fenced.iter().any(|fenced| fenced == lease_id) => LeaseState::Fenced,
            true => LeaseState::Renewed,
            false => LeaseState::Unknown,
        }
    }
}

type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[tonic::async_trait]
impl RegistryService for Fake {
    type KeepAliveStream = Answers<KeepAliveResponse>;
    type WatchStream = Answers<WatchResponse>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Lease>, Status> {
        self.check()?;
        let RegisterRequest { instance, holder, attempt, refused, methods, .. } = request.into_inner();
        self.change(|state| {
            state.attempts.push((holder, attempt));
            state.refused_before.push(refused);
        });
        let refuses = self.0.borrow().refuses;
        if let Some((code, why)) = refuses {
            self.change(|state| state.refusals += 1);
            return Err(Status::new(code, why));
        }
        let instance = instance.expect("given");
        let mut lease = Lease { lease_ttl: Some(TTL.try_into().expect("short")), ..Lease::default() };
        self.change(|state| {
            state.registrations += 1;
            state.methods = methods;
            state.revision += 1;
            lease.lease_id = format!("lease-{}", state.registrations);
            lease.epoch = format!("life-{}", state.life);
            lease.revision = state.revision;
            state.leases.insert(lease.lease_id.clone(), instance);
        });
        Ok(Response::new(lease))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        self.check()?;
        self.change(|state| state.streams += 1);
        let (registry, life) = (self.clone(), self.0.borrow().life);
        let mut lives = self.0.subscribe();
        let answers = request.into_inner().filter_map(move |request| {
            let registry = registry.clone();
            async move {
                let lease_id = request.ok()?.lease_id;
                let state = registry.renew(&lease_id).into();
                let state = registry.0.borrow().answers.unwrap_or(state);
                (!registry.0.borrow().silent).then_some(Ok(KeepAliveResponse { lease_id, state }))
            }
        });
        let cut = async move { lives.wait_for(|state| state.life != life).await.map(|_| ()).unwrap_or(()) };
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(cut)))))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterResponse>, Status> {
        self.check()?;
        self.change(|state| drop(state.leases.remove(&request.get_ref().lease_id)));
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn set_status(&self, request: Request<SetStatusRequest>) -> Result<Response<Lease>, Status> {
        self.check()?;
        let refuses = self.0.borrow().refuses.filter(|_| request.get_ref().status() == InstanceStatus::Serving);
        if let Some((code, why)) = refuses {
            return Err(Status::new(code, why));
        }
        let SetStatusRequest { lease_id, status } = request.into_inner();
        let mut lease = None;
        self.change(|state| {
            if let Some(instance) = state.leases.get_mut(&lease_id) {
                instance.status = status;
                state.revision += 1;
                let (epoch, revision) = (format!("life-{}", state.life), state.revision);
                lease = Some(Lease { epoch, revision, ..Lease::default() });
            }
        });
        lease.map(Response::new).ok_or_else(|| Status::not_found("unknown lease"))
    }

    async fn list_services(&self, _: Request<ListServicesRequest>) -> Result<Response<ListServicesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
