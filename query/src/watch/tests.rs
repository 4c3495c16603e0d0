//! A watcher sees every order's last state, never an older one after a newer, however slow it is.

use std::{collections::HashMap, pin::Pin, time::Duration};

use meshwork::health::Conditioner;
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};
use proptest::prelude::*;
use tempfile::TempDir;
use tonic::Code;

use super::*;
use crate::{
    Store,
    domain::{CustomerChange, CustomerCreated, CustomerEvent, Input, OrderChange, OrderCreated, OrderEvent},
    fixture::{id, usd, view},
};

/// Commits that no ring holds.
const TOO_MANY: u64 = 300;
/// Its customer is 0, and that of the next is 1, and so on.
const LAST_ORDER: u128 = 9_000;

struct World {
    store: Store,
    watches: Arc<Watches>,
    draining: CancellationToken,
    serving: Conditioner,
    position: u64,
    _dir: TempDir,
}

type Stream = Pin<Box<dyn futures_util::Stream<Item = Result<WatchOrdersResponse, Status>> + Send>>;

impl World {
    async fn open() -> Self {
        let (dir, store) = view().await;
        let (draining, serving) = (CancellationToken::new(), Conditioner::default());
        let hub = store.decider().hub();
        let watches = Arc::new(Watches::new(store.database().clone(), hub, draining.clone(), serving.condition()));
        Self { store, watches, draining, serving, position: 0, _dir: dir }
    }

    /// A watch that stands.
    async fn watch(&self, customer: Option<u128>) -> Stream {
        let mut stream: Stream = Box::pin(self.watches.watch(customer.map(id)));
        assert_eq!(stream.next().await.unwrap().unwrap(), WatchOrdersResponse::default());
        stream
    }

    /// One commit that changes one order; its customer is the order modulo 3.
    async fn change(&mut self, order: u128, change: OrderChange) {
        self.position += 1;
        let event = OrderEvent {
            order_id: id(order),
            customer_id: id(order % 3),
            time_ms: i64::try_from(self.position).unwrap(),
            partition: (order % 3) as u32,
            position: self.position,
            change,
        };
        self.store.writer().submit(Input::Order(event)).await.unwrap();
    }

    async fn create(&mut self, order: u128) {
        let created = OrderCreated { total: usd(100), create_time_ms: 1 };
        self.change(order, OrderChange::Created(created)).await;
    }
}

fn states(response: &WatchOrdersResponse) -> Vec<(u128, OrderState)> {
    let id = |order: &proto::Order| Uuid::parse_str(&order.order_id).unwrap().as_u128();
    response.orders.iter().map(|order| (id(order), order.state())).collect()
}

impl World {
    /// All that arrives, by order: a last change of an order that is newer than all others shows where it ends.
    async fn drain(&mut self, stream: &mut Stream, customer: u128) -> Vec<WatchOrdersResponse> {
        let last = id(LAST_ORDER + customer).to_string();
        self.create(LAST_ORDER + customer).await;
        let mut responses = Vec::new();
        let ended = |response: &mut WatchOrdersResponse| {
            let before = response.orders.len();
            response.orders.retain(|order| order.order_id != last);
            response.orders.len() < before
        };
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), stream.next());
            let mut response = next.await.expect("it arrives").unwrap().unwrap();
            let end = ended(&mut response);
            responses.push(response);
            if end {
                return responses;
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_sees_changes_as_they_are_committed_with_the_customers_name() {
    let mut world = World::open().await;
    let customer = CustomerEvent {
        customer_id: id(1),
        position: 1,
        change: CustomerChange::Created(CustomerCreated { name: "Ann".into(), create_time_ms: 1 }, usd(1)),
    };
    world.store.writer().submit(Input::Customer(customer)).await.unwrap();
    world.create(1).await;
    let mut stream = world.watch(None).await;

    world.change(1, OrderChange::Rejected(RejectionReason::InsufficientCredit)).await;
    let response = stream.next().await.unwrap().unwrap();
    assert_eq!(states(&response), [(1, OrderState::Rejected)]);
    assert_eq!(response.orders[0].customer_name, "Ann");
    assert_eq!(response.orders[0].rejection_reason(), RejectionReason::InsufficientCredit);

    world.create(2).await;
    world.change(2, OrderChange::Approved).await;
    assert_eq!(states(&stream.next().await.unwrap().unwrap()), [(2, OrderState::Approved)], "coalesced to the latest");
}

#[tokio::test]
async fn where_the_view_is_shared_changes_are_read_from_it_and_never_go_back() {
    let mut world = World::open().await;
    let (database, hub) = (world.store.database().clone(), world.store.decider().hub());
    hub.share([0; 16]);
    let mut stream = world.watch(None).await;
    world.create(1).await;
    let mut folded = [0; 16];
    folded[1] = world.position;
    let first = hub.behind(&folded);
    world.change(1, OrderChange::Approved).await;
    folded[1] = world.position;

    follow::publish(&database, &hub, &hub.behind(&folded)).await.unwrap();
    follow::publish(&database, &hub, &first).await.unwrap();
    assert_eq!(hub.behind(&folded), []);
    world.create(2).await;
    folded[2] = world.position;
    follow::publish(&database, &hub, &hub.behind(&folded)).await.unwrap();
    let seen = [stream.next().await.unwrap().unwrap()].iter().flat_map(states).collect::<Vec<_>>();
    assert_eq!(seen, [(1, OrderState::Approved), (2, OrderState::Pending)], "each once, and no commit by itself");
}

#[tokio::test]
async fn a_watcher_of_a_customer_sees_no_others_orders() {
    let mut world = World::open().await;
    let mut stream = world.watch(Some(2)).await;
    for order in 1..=6 {
        world.create(order).await;
    }
    let seen: Vec<_> = world.drain(&mut stream, 2).await.iter().flat_map(states).map(|(order, _)| order).collect();
    assert_eq!(seen, [2, 5]);
}

#[tokio::test]
async fn a_watcher_that_lags_gets_the_last_state_of_all_that_changed_and_nothing_else() {
    let mut world = World::open().await;
    for order in 1..=10 {
        world.create(order).await;
    }
    let mut all = world.watch(None).await;
    let mut of_customer = world.watch(Some(0)).await;
    for round in 0..TOO_MANY {
        let change = if round % 2 == 0 { OrderChange::Approved } else { OrderChange::Cancelled };
        world.change(u128::from(round % 4) + 1, change).await;
    }

    let seen: Vec<_> = world.drain(&mut all, 1).await.iter().flat_map(states).collect();
    let expected =
        [(1, OrderState::Approved), (2, OrderState::Cancelled), (3, OrderState::Approved), (4, OrderState::Cancelled)];
    assert_eq!(seen, expected);
    let seen: Vec<_> = world.drain(&mut of_customer, 0).await.iter().flat_map(states).collect();
    assert_eq!(seen, [(3, OrderState::Approved)]);

    world.change(7, OrderChange::Approved).await;
    let goes_on: Vec<_> = world.drain(&mut all, 2).await.iter().flat_map(states).collect();
    assert_eq!(goes_on, [(7, OrderState::Approved), (LAST_ORDER, OrderState::Pending)]);
}

#[tokio::test]
async fn a_message_has_a_bounded_number_of_orders() {
    let mut world = World::open().await;
    let mut stream = world.watch(None).await;
    let orders = u128::from(TOO_MANY) * 2;
    for order in 1..=orders {
        world.create(order).await;
    }
    let responses = world.drain(&mut stream, 0).await;
    assert!(responses.iter().all(|response| response.orders.len() <= MAX_ORDERS_PER_MESSAGE));
    let mut seen: Vec<_> = responses.iter().flat_map(states).map(|(order, _)| order).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=orders).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_drain_ends_the_watch_so_that_its_client_moves() {
    let mut world = World::open().await;
    let mut stream = world.watch(None).await;
    world.create(1).await;
    world.draining.cancel();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_instance_that_is_not_serving_ends_its_watches_so_that_they_go_on_elsewhere() {
    let world = World::open().await;
    let mut stream = world.watch(None).await;
    assert!(futures_util::poll!(stream.next()).is_pending(), "nothing has changed");
    world.serving.set(Err("the file was removed".into()));
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the file was removed"), "{status}");
    assert!(stream.next().await.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn however_slow_a_watcher_is_no_order_goes_back_and_each_last_state_arrives(
        steps in prop::collection::vec((0..200_u64, 0..6_u8), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::open().await;
            for order in 1..=5 {
                world.create(order).await;
            }
            let mut stream = world.watch(None).await;
            let mut last: HashMap<u128, i64> = HashMap::new();
            let mut responses = Vec::new();
            for (changes, polls) in steps {
                for change in 0..changes {
                    let order = u128::from(change % 5) + 1;
                    world.change(order, OrderChange::Approved).await;
                    last.insert(order, i64::try_from(world.position).unwrap());
                }
                for _ in 0..polls {
                    // Polled once: it may be stuck in the middle of reading what it missed while more is committed.
                    if let Some(Some(response)) = futures_util::FutureExt::now_or_never(stream.next()) {
                        responses.push(response.unwrap());
                    }
                }
            }
            responses.extend(world.drain(&mut stream, 0).await);

            let mut seen: HashMap<u128, i64> = HashMap::new();
            for order in responses.iter().flat_map(|response| &response.orders) {
                let time = order.update_time.unwrap();
                let time = time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000;
                let before = seen.insert(Uuid::parse_str(&order.order_id).unwrap().as_u128(), time);
                assert!(before.is_none_or(|before| before < time), "{order:?} after {before:?}");
            }
            assert_eq!(seen, last);
        });
    }
}

#[tokio::test]
async fn a_watch_of_a_view_that_begins_anew_ends_and_the_next_one_sees_what_comes() {
    let mut world = World::open().await;
    let (mut stream, mut slow) = (world.watch(None).await, world.watch(None).await);
    world.create(1).await;
    assert_eq!(states(&stream.next().await.unwrap().unwrap()), [(1, OrderState::Pending)]);
    for _ in 0..TOO_MANY {
        world.create(2).await;
    }
    world.store.decider().hub().begin_anew(None);
    for stream in [&mut stream, &mut slow] {
        let ended = async { while stream.next().await.expect("an error comes first").is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it ends");
        assert!(stream.next().await.is_none());
    }

    // The same positions again.
    world.position = 0;
    let mut stream = world.watch(None).await;
    world.create(3).await;
    assert_eq!(states(&stream.next().await.unwrap().unwrap()), [(3, OrderState::Pending)]);
}
