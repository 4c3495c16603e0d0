//! What outlives a process: orders, and sagas that were under way.

use std::time::Duration;

use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};

use crate::shop::{Shop, usd};

on_both_stores!(
    flavor = "multi_thread";
    a_mesh_that_was_killed_finishes_its_sagas_when_it_is_started_again,
    an_order_that_gets_no_answer_is_rejected_at_its_deadline_even_after_a_restart,
);

async fn a_mesh_that_was_killed_finishes_its_sagas_when_it_is_started_again(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(100_000)).await;
    let mut orders = Vec::new();
    for _ in 0..50 {
        orders.push(shop.order(&customer.customer_id, usd(100)).await.order_id);
    }
    let Shop { fleet, home, .. } = shop;
    fleet.kill().await;

    let shop = Shop::open_in(home, 2, |_| {}).await;
    for order_id in &orders {
        assert_eq!(shop.settled(order_id).await.state(), OrderState::Approved);
    }
    let left = shop.get_customer(&customer.customer_id).await.available_credit;
    assert_eq!(left, Some(usd(100_000 - 50 * 100)), "each reserved once");
    shop.fleet.stop().await;
}

async fn an_order_that_gets_no_answer_is_rejected_at_its_deadline_even_after_a_restart(engine: Engine) {
    let no_customers = |config: &mut meshwork_cli::fleet::Config| {
        config.replicas.customer = 0;
        config.saga_deadline = Duration::from_secs(1);
    };
    let shop = Shop::open(&engine, 1).await;
    let customer = shop.customer(usd(1500)).await;
    let Shop { fleet, home, .. } = shop;
    fleet.stop().await;

    let shop = Shop::open_in(home, 1, no_customers).await;
    let order = shop.order(&customer.customer_id, usd(1000)).await;
    let Shop { fleet, home, .. } = shop;
    fleet.kill().await;

    let shop = Shop::open_in(home, 1, no_customers).await;
    let settled = shop.settled(&order.order_id).await;
    assert_eq!((settled.state(), settled.rejection_reason()), (OrderState::Rejected, RejectionReason::TimedOut));
    let Shop { fleet, home, .. } = shop;
    fleet.stop().await;

    // The customer service comes back, and hears of the order and its end in one go.
    let shop = Shop::open_in(home, 1, |_| {}).await;
    let second = shop.settled_order(&customer.customer_id, usd(1500)).await;
    assert_eq!(second.state(), OrderState::Approved, "nothing stayed reserved");
    shop.fleet.stop().await;
}
