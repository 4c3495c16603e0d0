//! What clients can make a registry log.

use std::fmt;

use meshwork::contract::meshwork::registry::v1::{AdoptStoreRequest, Policy, SetPolicyRequest, StoreScope};
use parking_lot::Mutex;
use tracing::{
    Event, Metadata, Subscriber,
    field::Field,
    span::{Attributes, Id, Record},
    subscriber::set_default,
};

use super::{
    identities::{CUSTOMER, ORDER},
    *,
};
use crate::limits::MAX_LINES;

/// The messages that were logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn count(&self, begin: &str) -> usize {
        self.0.lock().iter().filter(|message| message.starts_with(begin)).count()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "message" {
                self.0.lock().push(format!("{value:?}"));
            }
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn what_clients_do_again_and_again_is_logged_a_bounded_number_of_times_a_minute() {
    let log = Log::default();
    let _logging = set_default(log.clone());
    let mut mesh = Mesh::start();
    let with_store = |service: &str, id: &str, store_id: &str| {
        let RegisterRequest { instance, .. } = request(service, id);
        let scope = StoreScope::Service.into();
        let instance = Instance { store_id: store_id.into(), store_scope: scope, ..instance.expect("given") };
        RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
    };
    for number in 0..i64::from(MAX_LINES) + 50 {
        let service = format!("service-{number}");
        mesh.client.register(with_store(&service, "a", "one")).await.expect("the first");
        mesh.client.register(with_store(&service, "b", "two")).await.expect_err("another store");
        let adoption = AdoptStoreRequest { service: service.clone(), store_id: "one".into() };
        mesh.stores.adopt_store(adoption).await.expect("it is served");
        let timeout = Some(prost_types::Duration { seconds: number + 1, nanos: 0 });
        let policy = Policy { service: "order".into(), timeout, ..Policy::default() };
        mesh.policies.set_policy(SetPolicyRequest { policy: Some(policy) }).await.expect("a good policy");
    }
    let lines = ["policy set", "a store was adopted", "instances of the service have different stores"];
    assert_eq!(lines.map(|begin| log.count(begin)), [MAX_LINES as usize; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_callers_may_not_do_is_logged_a_bounded_number_of_times_a_minute() {
    let log = Log::default();
    let _logging = set_default(log.clone());
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    let order = mesh.register_by(ORDER, "order", "a").await.expect("its own");
    let mut renewals = mesh.keep_alive_by(CUSTOMER).await;
    for number in 0..MAX_LINES {
        mesh.register_by(CUSTOMER, "order", "a").await.expect_err("another's");
        assert_eq!(renewals.renew(&order).await, LeaseState::Unknown);
        for (caller, service) in [(ORDER, "order"), (CUSTOMER, "customer"), (CUSTOMER, "customer")] {
            let names = [format!("shop.S{number}"), format!("shop.T{number}")];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            mesh.announce(caller, service, &names).await;
        }
    }
    let lines = ["a call was refused", "an instance announces a gRPC service that is bound to another"];
    assert_eq!(lines.map(|begin| log.count(begin)), [MAX_LINES as usize; 2]);
}
