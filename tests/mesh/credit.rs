//! The credit line under concurrency: whatever comes at once, the limit holds.

use futures_util::future::join_all;
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};

use crate::shop::{Shop, usd};

on_both_stores!(flavor = "multi_thread"; concurrent_orders_on_one_limit_never_exceed_it);

async fn concurrent_orders_on_one_limit_never_exceed_it(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(10_000)).await;
    let orders = join_all((0..60).map(|_| shop.settled_order(&customer.customer_id, usd(300)))).await;

    let approved = orders.iter().filter(|order| order.state() == OrderState::Approved).count();
    assert_eq!(approved, 33, "as many as fit, and no more");
    let refused = orders.iter().filter(|order| order.rejection_reason() == RejectionReason::InsufficientCredit).count();
    assert_eq!(approved + refused, orders.len());
    let left = shop.get_customer(&customer.customer_id).await.available_credit;
    assert_eq!(left, Some(usd(10_000 - 33 * 300)));
    shop.fleet.stop().await;
}
