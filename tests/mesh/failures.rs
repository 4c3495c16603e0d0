//! What callers see while instances come and go: nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::order::v1::{CreateOrderRequest, GetOrderRequest, OrderState};
use tokio::task::JoinSet;
use tonic::Status;

use crate::shop::{Shop, usd};

/// Callers at once while something happens.
const CALLERS: usize = 16;

/// Reads and writes orders from many tasks until told to stop.
struct Load {
    tasks: JoinSet<Result<(), Status>>,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Load {
    fn start(shop: &Shop, customer_id: &str) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut orders, stop, calls) = (shop.orders.clone(), stop.clone(), calls.clone());
            let customer_id = customer_id.to_owned();
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (customer_id, total, request_id) = (customer_id.clone(), Some(usd(1)), String::new());
                    let request = CreateOrderRequest { customer_id, total, request_id };
                    let order_id = orders.create_order(request).await?.into_inner().order_id;
                    orders.get_order(GetOrderRequest { order_id }).await?;
                    calls.fetch_add(2, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self { tasks, stop, calls }
    }

    /// Waits until that many calls more were answered.
    async fn go_on_for(&self, calls: usize) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        while self.calls.load(Ordering::Relaxed) < goal && !self.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the load; every call must have succeeded.
    async fn expect_no_failed_call(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(result) = self.tasks.join_next().await {
            result.expect("no panic").expect("no failed call");
        }
    }
}

on_both_stores!(
    flavor = "multi_thread";
    no_call_fails_while_one_of_two_instances_stops_gracefully,
    no_call_fails_while_the_registry_restarts,
    no_read_fails_at_the_abrupt_end_of_one_of_two_instances_and_no_call_after_it,
    sagas_end_although_instances_die_on_the_way,
);

async fn no_call_fails_while_one_of_two_instances_stops_gracefully(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(1_000_000)).await;
    let load = Load::start(&shop, &customer.customer_id);
    load.go_on_for(200).await;
    let leaving = &shop.instances("order")[0].instance_id;
    shop.fleet.drain(leaving).await;
    load.go_on_for(200).await;
    load.expect_no_failed_call().await;
    assert_eq!(shop.instances("order").len(), 1);
    shop.fleet.stop().await;
}

async fn no_call_fails_while_the_registry_restarts(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(1_000_000)).await;
    let load = Load::start(&shop, &customer.customer_id);
    load.go_on_for(200).await;
    let mut endpoints = shop.fleet.mesh().endpoints("order");
    let before = endpoints.borrow().revisions.clone();
    shop.fleet.abort_registry().await;
    // It comes back empty and provisional: clients remove no instance because of it, and all instances register again.
    let back = async {
        // What is borrowed is given back at once: discovery waits for it with the next set.
        let set = endpoints.wait_for(|set| !set.revisions.keys().eq(before.keys()) && set.endpoints.len() == 2).await;
        drop(set.expect("discovery runs"));
    };
    tokio::join!(back, load.go_on_for(1000));
    load.expect_no_failed_call().await;
    shop.fleet.stop().await;
}

async fn no_read_fails_at_the_abrupt_end_of_one_of_two_instances_and_no_call_after_it(engine: Engine) {
    let shop = Shop::open_with(&engine, 2, |config| {
        config.restart_after = std::time::Duration::from_secs(600);
        config.lease_ttl = std::time::Duration::from_secs(300);
    })
    .await;
    let customer = shop.customer(usd(1_000_000)).await;
    let order = shop.settled_order(&customer.customer_id, usd(1)).await;
    let killed = shop.instances("order")[0].instance_id.clone();
    // Reads that are under way when the connections break are sent again. A CreateOrder may have been processed or not:
    // it may fail, and its caller has the request_id to ask again.
    let readers = (0..CALLERS).map(|_| async {
        for _ in 0..100 {
            shop.get_order(&order.order_id).await;
        }
    });
    tokio::join!(join_all(readers), shop.fleet.abort(&killed));
    for _ in 0..200 {
        shop.get_order(&order.order_id).await;
        shop.order(&customer.customer_id, usd(1)).await;
    }
    let set = shop.fleet.mesh().endpoints("order").borrow().clone();
    assert!(set.endpoints.contains_key(&*killed), "its lease still runs");
    shop.fleet.stop().await;
}

async fn sagas_end_although_instances_die_on_the_way(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(1_000_000)).await;
    let orders = join_all((0..200).map(|_| shop.order(&customer.customer_id, usd(100)))).await;
    for service in ["customer", "order"] {
        let killed = shop.instances(service)[0].instance_id.clone();
        shop.fleet.abort(&killed).await;
    }
    let settled = join_all(orders.iter().map(|order| shop.settled(&order.order_id))).await;
    assert!(settled.iter().all(|order| order.state() == OrderState::Approved));
    let left = shop.get_customer(&customer.customer_id).await.available_credit;
    assert_eq!(left, Some(usd(1_000_000 - 200 * 100)), "each reserved once");
    shop.fleet.stop().await;
}
