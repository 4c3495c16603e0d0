//! Hostile callers: every rpc of every service, asked in every wrong way, does no harm.
//!
//! The calls are made from the descriptors, so that a new rpc is covered from its first day. `MESHWORK_FUZZ_CALLS` says how
//! many there are (default [`CALLS`]), `MESHWORK_FUZZ_SEED` with which number they begin.

mod call;
mod lexicon;
mod message;
mod wire;

use std::{
    collections::BTreeSet,
    env,
    panic::{self, PanicHookInfo},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use meshwork::{
    contract::{
        DESCRIPTORS,
        meshwork::{
            event::v1::{ListSubscriptionsRequest, operations_service_client::OperationsServiceClient},
            registry::v1::{AdoptStoreRequest, InstanceStatus, store_service_client::StoreServiceClient},
        },
    },
    discovery::EndpointSet,
};
use meshwork_cli::{direct::Direct, fleet::Instance};
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    order::v1::OrderState,
    query::v1::{GetOrderRequest, GetProjectionStatusRequest, ProjectionState},
};
use parking_lot::Mutex;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

use crate::shop::{STUCK, Shop, usd};
use call::{Call, Ending, PREFIX};
use lexicon::Lexicon;
use wire::{Answer, Outcome, Peer};

/// Some seconds of a debug build.
const CALLS: usize = 4000;
/// Harms that a failure shows.
const SHOWN: usize = 20;
/// Callers at once.
const CALLERS: usize = 24;

/// A method of an instance.
struct Target {
    peer: Arc<Peer>,
    method: MethodDescriptor,
}

/// What the callers share.
struct Attack {
    seed: u64,
    calls: usize,
    targets: Vec<Target>,
    lexicon: Lexicon,
    next: AtomicUsize,
    /// Methods that have answered.
    answered: Mutex<BTreeSet<String>>,
    /// What must not have happened, and the calls that it happened to.
    harms: Mutex<Vec<String>>,
}

on_both_stores!(
    flavor = "multi_thread";
    every_rpc_survives_hostile_callers_and_the_mesh_still_serves,
);

async fn every_rpc_survives_hostile_callers_and_the_mesh_still_serves(engine: Engine) {
    let panics = Panics::count();
    let shop = Shop::open(&engine, 1).await;
    let pool = descriptors();
    let attack = Arc::new(Attack {
        seed: number("MESHWORK_FUZZ_SEED").unwrap_or(1),
        calls: number("MESHWORK_FUZZ_CALLS").map_or(CALLS, |calls| usize::try_from(calls).expect("a number of calls")),
        targets: targets(&shop, &pool).await,
        lexicon: Lexicon::new(),
        next: AtomicUsize::new(0),
        answered: Mutex::default(),
        harms: Mutex::default(),
    });
    let own = [("customer", own_store(&shop, "customer").await), ("order", own_store(&shop, "order").await)];
    let callers: JoinSet<_> = (0..CALLERS).map(|_| attack.clone().run()).collect();
    callers.join_all().await;

    let harms = attack.harms.lock().clone();
    assert!(harms.is_empty(), "{} calls did harm:\n\n{}", harms.len(), harms[..harms.len().min(SHOWN)].join("\n\n"));
    let methods: BTreeSet<_> = attack.targets.iter().map(|target| target.method.full_name().to_owned()).collect();
    let answered = attack.answered.lock().clone();
    assert_eq!(answered, methods, "every method that is served was asked and has answered");
    for (service, store_id) in own {
        adopt(&shop, service, store_id).await;
    }
    still_serves(&shop).await;
    shop.fleet.stop().await;
    assert_eq!(panics.seen(), Vec::<String>::new(), "seed {}", attack.seed);
}

impl Attack {
    async fn run(self: Arc<Self>) {
        while let n = self.next.fetch_add(1, Ordering::Relaxed)
            && n < self.calls
        {
            let seed = self.seed.wrapping_add(n as u64);
            let Target { peer, method } = &self.targets[n % self.targets.len()];
            let call = Call::hostile(seed, method, &self.lexicon);
            let harm = |what: &str| {
                let harm = format!("{what}\nseed {seed}, {}\n{call:?}", method.full_name());
                self.harms.lock().push(harm);
            };
            match timeout(STUCK, peer.send(&call)).await {
                Err(_) => harm("the call is stuck"),
                Ok(Outcome::Failed(error)) if call.ending != Ending::Reset => harm(&format!("it failed: {error}")),
                Ok(Outcome::Failed(_)) => {}
                Ok(Outcome::Left(body)) => self.learn(method, &body, seed),
                Ok(Outcome::Answered(answer)) => {
                    if let Err(what) = judge(&answer) {
                        harm(&format!("{what}: {answer:?}"));
                    }
                    self.learn(method, &answer.body, seed);
                    self.answered.lock().insert(method.full_name().to_owned());
                }
            }
        }
    }

    /// Remembers what the messages of an answer say.
    fn learn(&self, method: &MethodDescriptor, mut body: &[u8], seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        while let [_, a, b, c, d, rest @ ..] = body {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let Some((message, rest)) = rest.split_at_checked(length) else { return };
            let message = DynamicMessage::decode(method.output(), message).expect("the contract's message");
            self.lexicon.learn(&message, &mut rng);
            body = rest;
        }
    }
}

/// Whether an answer is one that a caller may get for its own mistakes.
fn judge(answer: &Answer) -> Result<(), &'static str> {
    match (answer.http, answer.status.as_ref().map(tonic::Status::code)) {
        // gRPC's compression.md says so.
        (200, Some(Code::Internal)) if reason(answer).as_deref() == Some("MALFORMED_COMPRESSION") => Ok(()),
        (200, Some(Code::Internal | Code::Unknown)) => Err("a caller's mistake became the server's"),
        (200, Some(_)) => Ok(()),
        (200, None) => Err("an answer has no status"),
        // Not gRPC at all.
        (405 | 415, _) => Ok(()),
        _ => Err("an unexpected HTTP status"),
    }
}

/// What an error says that it is.
fn reason(answer: &Answer) -> Option<String> {
    answer.status.as_ref()?.get_details_error_info().map(|info| info.reason)
}

/// Every method that an instance says it serves.
async fn targets(shop: &Shop, pool: &DescriptorPool) -> Vec<Target> {
    let mut targets = Vec::new();
    for instance in shop.fleet.instances() {
        let peer = Arc::new(Peer::new(instance.address));
        for name in services(&peer).await {
            let service = pool.get_service_by_name(&name).unwrap_or_else(|| panic!("{name} is in no descriptor"));
            targets.extend(service.methods().map(|method| Target { peer: peer.clone(), method }));
        }
    }
    targets
}

/// What an instance serves, as its reflection has it.
async fn services(peer: &Peer) -> Vec<String> {
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let call = Call::honest("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &request);
    let Outcome::Answered(Answer { body, .. }) = peer.send(&call).await else { panic!("reflection answers") };
    let answer = ServerReflectionResponse::decode(&body[PREFIX..]).expect("one message");
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|s| s.name).collect(),
        other => panic!("a list was asked for, not {other:?}"),
    }
}

/// The contracts, and what every server has beside it.
fn descriptors() -> DescriptorPool {
    let mut pool = DescriptorPool::decode(DESCRIPTORS).expect("our descriptors");
    for encoded in [
        meshwork_shop::contract::DESCRIPTORS,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(encoded).expect("their descriptors");
    }
    pool
}

fn instance(shop: &Shop, service: &str) -> Instance {
    shop.fleet.instances().into_iter().find(|instance| instance.service == service).expect("it runs")
}

/// The id of the store that `service` runs on.
async fn own_store(shop: &Shop, service: &str) -> String {
    let own = instance(shop, service);
    let Direct { transport, origin } = Direct::connect(&own.address.to_string(), None, None).await.expect("it listens");
    let mut operations = OperationsServiceClient::with_origin(transport, origin);
    operations.list_subscriptions(ListSubscriptionsRequest {}).await.expect("it answers").into_inner().store_id
}

/// Anyone who can call the registry can say which store is a service's, and the callers did: an operator puts that right.
async fn adopt(shop: &Shop, service: &str, store_id: String) {
    let own = instance(shop, service);
    let registry = Direct::connect(&shop.fleet.registry_addr().to_string(), None, None).await.expect("it listens");
    let mut stores = StoreServiceClient::with_origin(registry.transport, registry.origin);
    let adopted = async {
        let request = AdoptStoreRequest { service: service.to_owned(), store_id };
        // Where it was refused it is known by its next attempt.
        while stores.adopt_store(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let is_there = |set: &EndpointSet| {
            let instance = set.endpoints.get(&*own.instance_id);
            instance.is_some_and(|instance| instance.status() == InstanceStatus::Serving)
        };
        shop.fleet.mesh().endpoints(service).wait_for(is_there).await.expect("the mesh is there");
    };
    timeout(STUCK, adopted).await.expect("in time");
}

/// A new order settles, and the read side has seen it.
async fn still_serves(shop: &Shop) {
    let customer = shop.customer(usd(1500)).await;
    let order = shop.settled_order(&customer.customer_id, usd(1234)).await;
    assert_eq!(order.state(), OrderState::Approved);
    let token = order.position_token.clone();
    let request = GetOrderRequest { order_id: order.order_id, position_token: token.clone() };
    let seen = shop.queries.clone().get_order(request).await.expect("seen").into_inner();
    assert_eq!(seen.state(), OrderState::Approved);
    // A subscription whose source was not to be had meanwhile tries again after some seconds.
    let all_run = async {
        let request = GetProjectionStatusRequest { position_token: token };
        let mut queries = shop.queries.clone();
        while let all = queries.get_projection_status(request.clone()).await.expect("known").into_inner().projections
            && !all.iter().all(|projection| projection.state() == ProjectionState::Running)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(STUCK, all_run).await.expect("every subscription runs again");
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Panics of the mesh's own code, wherever they are caught.
#[derive(Clone, Default)]
struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    fn count() -> Self {
        let (panics, before) = (Self::default(), panic::take_hook());
        let counted = panics.clone();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            // A test that fails panics too.
            if info.location().is_none_or(|location| !location.file().starts_with("tests/")) {
                counted.0.lock().push(info.to_string());
            }
            before(info);
        }));
        panics
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}
