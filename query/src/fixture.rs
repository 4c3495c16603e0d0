//! What tests need: a view on its own file, and producers whose events it folds over real streams, without a network.

use std::{convert::Infallible, sync::Arc};

use meshwork::{contract::meshwork::event::v1::event_service_client::EventServiceClient, health::Condition};
use meshwork_events::{
    consumer::Subscription,
    outbox::{Feed, NewEvent, Outbox},
    store::{self, StoreError, Transaction},
    writer::{Decider, Outcome, Rows, Writer},
};
use meshwork_shop::{Amount, Currency};
use prost::{Message, Name};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Store, consume, service::Service};

pub(crate) fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub(crate) fn usd(minor: i64) -> Amount {
    Amount::new(minor, Currency::from_code("USD").expect("a currency")).expect("an amount")
}

/// A view on a file that goes away with it.
pub(crate) async fn view() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = crate::open(&format!("sqlite://{}?synchronous=normal", dir.path().join("query.db").display()))
        .await
        .expect("a new view");
    (dir, store)
}

/// A service that emits the events it is given.
pub(crate) struct Producer {
    name: &'static str,
    outbox: Outbox,
    writer: Writer<Emit>,
}

struct Emit;

impl Decider for Emit {
    type Key = ();
    type Row = ();
    type Input = NewEvent;
    type Reply = ();
    type Refusal = Infallible;

    fn keys(&self, _input: &NewEvent, _keys: &mut Vec<()>) {}

    fn decide(&self, _rows: &Rows<(), ()>, input: &NewEvent) -> Result<Outcome<Self>, Infallible> {
        Ok(Outcome { rows: Vec::new(), events: vec![input.clone()], reply: () })
    }

    async fn load(&self, _tx: &mut dyn Transaction, _keys: &[()]) -> Result<Vec<((), ())>, StoreError> {
        Ok(Vec::new())
    }

    async fn save(&self, _tx: &mut dyn Transaction, _changed: &[((), ())]) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Producer {
    async fn open(name: &'static str, dir: &TempDir) -> Self {
        let url = format!("sqlite://{}", dir.path().join(name).display());
        let outbox = Outbox::open(store::open(&url).await.expect("a new store"), name).await.expect("a new log");
        let writer = Writer::start(outbox.clone(), Arc::new(Emit));
        Self { name, outbox, writer }
    }

    /// Emits an event about a customer's credit line; returns the position token that stands for it.
    pub(crate) async fn emit<M: Message + Name>(&self, customer_id: Uuid, payload: &M) -> String {
        let event = NewEvent::new(customer_id, ("test", customer_id), 1, 2_000, payload);
        let applied = self.writer.submit(event).await.expect("committed");
        self.outbox.token(self.name, applied.point.expect("it has an event"))
    }

    /// Where the log is, for tokens that the producer did not give out.
    pub(crate) fn store_id(&self) -> &str {
        self.outbox.store_id()
    }
}

/// The query service between its two producers.
pub(crate) struct Shop {
    pub(crate) orders: Producer,
    pub(crate) customers: Producer,
    pub(crate) service: Service,
    pub(crate) draining: CancellationToken,
    _subscriptions: [Subscription; 2],
    _dirs: [TempDir; 2],
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let (view_dir, store) = view().await;
        let dir = tempfile::tempdir().expect("a folder");
        let (orders, customers) = (Producer::open("order", &dir).await, Producer::open("customer", &dir).await);
        let draining = CancellationToken::new();
        let subscribe = |producer: &Producer, source| {
            let client =
                EventServiceClient::new(Feed::service(producer.outbox.clone(), draining.clone(), Condition::default()));
            Subscription::start(client, store.outbox().clone(), store.writer().clone(), source)
        };
        let view_id = store.outbox().store_id();
        let subscriptions =
            [subscribe(&orders, consume::orders(view_id)), subscribe(&customers, consume::customers(view_id))];
        let sources = [("order", &subscriptions[0]), ("customer", &subscriptions[1])];
        let sources = sources.map(|(name, subscription)| (name, subscription.past().clone()));
        let service = Service::new(&store, sources.to_vec(), &draining, Condition::default());
        Self { orders, customers, service, draining, _subscriptions: subscriptions, _dirs: [view_dir, dir] }
    }
}
