//! The announcing task against a registry in the same process, on a paused clock.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use tokio::sync::watch;
use tonic::{Request, Response};

use super::*;
use crate::contract::meshwork::registry::v1::{
    DeregisterResponse, ListInstancesRequest, ListInstancesResponse, ListServicesRequest, ListServicesResponse,
    WatchRequest, WatchResponse,
    registry_service_server::{RegistryService, RegistryServiceServer},
};

const TTL: Duration = Duration::from_secs(9);

/// What the fake registry holds; tests change it, and wait for it.
#[derive(Clone, Debug, Default)]
struct State {
    away: bool,
    /// Answers no renewal.
    silent: bool,
    refuses: bool,
    leases: BTreeMap<String, Instance>,
    fenced: Vec<String>,
    registrations: u64,
    streams: u64,
    renewals: u64,
    revision: u64,
    /// Streams of an earlier life are cut.
    life: u64,
}

#[derive(Clone)]
struct Fake(Arc<watch::Sender<State>>);

impl Fake {
    fn new(state: State) -> Self {
        Self(Arc::new(watch::channel(state).0))
    }

    fn client(&self) -> RegistryServiceClient<RegistryServiceServer<Self>> {
        RegistryServiceClient::new(RegistryServiceServer::new(self.clone()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }

    /// Waits for a condition, which on a paused clock takes no time.
    async fn until(&self, condition: impl FnMut(&State) -> bool) -> State {
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
        if self.0.borrow().refuses {
            return Err(Status::invalid_argument("service: must be a name"));
        }
        let instance = request.into_inner().instance.expect("given");
        let mut lease = Lease { lease_ttl: Some(TTL.try_into().expect("short")), ..Lease::default() };
        self.change(|state| {
            state.registrations += 1;
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

fn start(registry: &Fake) -> Announcer {
    let instance = Instance {
        service: "order".into(),
        instance_id: "a".into(),
        status: InstanceStatus::Serving.into(),
        ..Instance::default()
    };
    Announcer::start(registry.client(), instance, TTL)
}

/// The statuses of the instances that the registry has.
fn statuses(state: &State) -> Vec<InstanceStatus> {
    state.leases.values().map(Instance::status).collect()
}

#[tokio::test(start_paused = true)]
async fn an_instance_joins_changes_its_status_and_leaves() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    assert_eq!(statuses(&registry.until(|state| state.registrations == 1).await), [InstanceStatus::Serving]);

    let told = announcer.set_status(InstanceStatus::Draining).await.expect("confirmed");

    let expected = Announced { status: InstanceStatus::Draining, epoch: "life-0".into(), revision: 2 };
    assert_eq!(told, expected);
    assert_eq!(statuses(&registry.0.borrow()), [InstanceStatus::Draining]);
    announcer.leave().await;
    assert!(registry.0.borrow().leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_at_a_third_of_its_time_on_one_stream() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    let begin = Instant::now();
    let state = registry.until(|state| state.renewals == 7).await;
    assert_eq!(begin.elapsed(), TTL * 2);
    assert_eq!((state.streams, state.registrations), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_registry_the_instance_is_registered_again_as_it_is_now() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    announcer.set_status(InstanceStatus::NotServing).await.expect("confirmed");

    registry.change(|state| {
        state.leases.clear();
        state.life += 1;
    });

    let state = registry.until(|state| state.registrations == 2).await;
    assert_eq!(statuses(&state), [InstanceStatus::NotServing]);
    let state = registry.until(|state| state.renewals > 5).await;
    assert_eq!(state.registrations, 2, "once, and then renewed");
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_alone_is_opened_again_without_a_registration() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.life += 1);
    let state = registry.until(|state| state.renewals == 4).await;
    assert_eq!((state.streams, state.registrations), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_is_registered_again() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.leases.clear());
    assert_eq!(registry.until(|state| state.registrations == 2).await.leases.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_tried_again_and_found_when_it_is_back() {
    let registry = Fake::new(State { away: true, ..State::default() });
    let _announcer = start(&registry);
    tokio::time::advance(Duration::from_secs(60)).await;
    registry.change(|state| state.away = false);
    let back = Instant::now();
    registry.until(|state| state.registrations == 1).await;
    assert!(back.elapsed() <= Duration::from_secs(5), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_changed_while_the_registry_was_away_is_confirmed_when_it_is_back() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| {
        state.away = true;
        state.life += 1;
    });
    let registry_later = registry.clone();
    let back = async move {
        sleep(Duration::from_secs(60)).await;
        registry_later.change(|state| state.away = false);
    };
    let (told, ()) = tokio::join!(announcer.set_status(InstanceStatus::Draining), back);
    assert_eq!(told.expect("confirmed").status, InstanceStatus::Draining);
    assert_eq!(statuses(&registry.0.borrow()), [InstanceStatus::Draining]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_falls_silent_is_asked_on_another_stream() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.silent = true);
    registry.until(|state| state.streams == 2).await;
    registry.change(|state| state.silent = false);
    let renewals = registry.0.borrow().renewals;
    let state = registry.until(|state| state.renewals > renewals + 3).await;
    assert_eq!(state.registrations, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_instance_stops_and_does_not_fight_for_its_id() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.fenced = state.leases.keys().cloned().collect());

    let error = announcer.failed().await;

    assert!(matches!(&error, AnnounceError::Fenced { instance_id, .. } if instance_id == "a"), "{error}");
    assert_eq!(registry.0.borrow().registrations, 1);
    assert_eq!(announcer.set_status(InstanceStatus::Draining).await, None, "nobody is left to confirm it");
}

#[tokio::test(start_paused = true)]
async fn a_status_told_under_a_lost_lease_does_not_take_the_id_back_from_another() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.fenced = std::mem::take(&mut state.leases).into_keys().collect());

    assert_eq!(announcer.set_status(InstanceStatus::Draining).await, None);

    assert_eq!(registry.0.borrow().registrations, 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_the_registry_refuses_says_why() {
    let registry = Fake::new(State { refuses: true, ..State::default() });
    let error = start(&registry).failed().await;
    assert!(
        matches!(&error, AnnounceError::Refused { source, .. } if source.message().contains("must be a name")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn leaving_a_registry_that_is_away_takes_a_second_at_most() {
    for away_from_the_start in [true, false] {
        let registry = Fake::new(State { away: away_from_the_start, ..State::default() });
        let announcer = start(&registry);
        if !away_from_the_start {
            registry.until(|state| state.renewals == 1).await;
            registry.change(|state| {
                state.away = true;
                state.life += 1;
            });
        }
        let begin = Instant::now();
        announcer.leave().await;
        assert!(begin.elapsed() <= Duration::from_secs(1));
        assert_eq!(Arc::strong_count(&registry.0), 1, "the task and its streams are gone");
    }
}
