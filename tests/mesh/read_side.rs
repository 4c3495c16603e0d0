//! The read side: what it shows, and that it never shows less than its caller knows.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use meshwork_cli::fleet::{Databases, Views};
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    order::v1::{OrderState, RejectionReason},
    query::v1::{
        GetCustomerHistoryRequest, GetOrderRequest, GetProjectionStatusRequest, ListOrdersRequest,
        Order as ViewedOrder, ProjectionState, WatchOrdersRequest, WatchOrdersResponse,
    },
};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::shop::{STUCK, Shop, usd};

on_both_stores!(
    flavor = "multi_thread";
    a_query_with_a_position_token_sees_what_its_caller_wrote,
    a_customers_history_shows_every_order_with_its_reason_page_by_page,
    orders_are_listed_by_state_and_the_projection_says_how_far_it_is,
);

async fn a_query_with_a_position_token_sees_what_its_caller_wrote(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(10_000)).await;
    for _ in 0..20 {
        let order = shop.order(&customer.customer_id, usd(100)).await;
        let request = GetOrderRequest { order_id: order.order_id.clone(), position_token: order.position_token };
        let seen = shop.queries.clone().get_order(request).await.expect("seen").into_inner();
        assert_eq!(seen.total, order.total);

        let settled = shop.settled(&order.order_id).await;
        let request = GetOrderRequest { order_id: order.order_id, position_token: settled.position_token };
        let seen = shop.queries.clone().get_order(request).await.expect("seen").into_inner();
        assert_eq!(seen.state(), OrderState::Approved, "no staler than what the caller has seen");
    }
    shop.fleet.stop().await;
}

async fn a_customers_history_shows_every_order_with_its_reason_page_by_page(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let customer = shop.customer(usd(1500)).await;
    let approved = shop.settled_order(&customer.customer_id, usd(1234)).await;
    let rejected = shop.settled_order(&customer.customer_id, usd(12_340)).await;

    let mut shown = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = GetCustomerHistoryRequest {
            customer_id: customer.customer_id.clone(),
            page_size: 1,
            page_token,
            position_token: rejected.position_token.clone(),
        };
        let page = shop.queries.clone().get_customer_history(request).await.expect("seen").into_inner();
        let view = page.customer.expect("the customer");
        assert_eq!((view.name.as_str(), view.credit_limit), ("Ada", Some(usd(1500))));
        shown.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let shown: Vec<_> = shown.iter().map(|o| (o.order_id.clone(), o.state(), o.rejection_reason())).collect();
    let expected = [
        (rejected.order_id, OrderState::Rejected, RejectionReason::InsufficientCredit),
        (approved.order_id, OrderState::Approved, RejectionReason::Unspecified),
    ];
    assert_eq!(shown, expected, "newest first");
    shop.fleet.stop().await;
}

async fn orders_are_listed_by_state_and_the_projection_says_how_far_it_is(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let customer = shop.customer(usd(1500)).await;
    shop.settled_order(&customer.customer_id, usd(1000)).await;
    let rejected = shop.settled_order(&customer.customer_id, usd(1000)).await;

    let request = ListOrdersRequest {
        customer_id: customer.customer_id,
        state: OrderState::Rejected.into(),
        position_token: rejected.position_token.clone(),
        ..ListOrdersRequest::default()
    };
    let listed = shop.queries.clone().list_orders(request).await.expect("listed").into_inner().orders;
    assert_eq!(listed.iter().map(|order| &order.order_id).collect::<Vec<_>>(), [&rejected.order_id]);

    let request = GetProjectionStatusRequest { position_token: rejected.position_token };
    let status = shop.queries.clone().get_projection_status(request).await.expect("known").into_inner();
    let mut sources: Vec<_> = status.projections.iter().map(|p| (p.source.as_str(), p.state())).collect();
    sources.sort_unstable();
    assert_eq!(sources, [("customer", ProjectionState::Running), ("order", ProjectionState::Running)]);
    shop.fleet.stop().await;
}

/// The next states of orders on a watch, until each of `orders` was seen settled.
async fn see_settled(mut watch: Streaming<WatchOrdersResponse>, orders: &[String]) {
    let mut unseen: BTreeSet<&String> = orders.iter().collect();
    while !unseen.is_empty() {
        let response = watch.message().await.expect("the watch stands").expect("it does not end");
        for order in response.orders.iter().filter(|order| order.state() == OrderState::Approved) {
            unseen.remove(&order.order_id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_a_shared_view_divide_the_folding_and_each_shows_all_of_it() {
    let Some(engine) = Engine::postgres() else { return };
    let shop = Shop::open_with(&engine, 2, |config| {
        config.restart_after = Duration::from_secs(600);
        if let Databases::Postgres { views, .. } = &mut config.databases {
            *views = Views::Shared;
        }
    })
    .await;
    let stores: BTreeSet<_> = shop.instances("query").into_iter().map(|instance| instance.store).collect();
    assert_eq!(stores.len(), 1, "{stores:?}");

    // On both instances: each stands at one of them.
    let customer = shop.customer(usd(100_000)).await;
    let watch = || async { shop.queries.clone().watch_orders(WatchOrdersRequest::default()).await };
    let watches = join_all((0..8).map(|_| watch())).await;
    let orders = join_all((0..40).map(|_| shop.order(&customer.customer_id, usd(100)))).await;
    let ids: Vec<String> = orders.iter().map(|order| order.order_id.clone()).collect();
    let seen = watches.into_iter().map(|watch| see_settled(watch.expect("watched").into_inner(), &ids));
    timeout(STUCK, join_all(seen)).await.expect("every watcher sees what either instance folds");

    // What one folded is there for the other to go on with.
    shop.fleet.abort(&shop.instances("query")[0].instance_id).await;
    for _ in 0..8 {
        let customer = shop.customer(usd(1500)).await;
        let order = shop.settled_order(&customer.customer_id, usd(1000)).await;
        let (customer_id, position_token) = (customer.customer_id, order.position_token);
        let request = ListOrdersRequest { customer_id, position_token, ..ListOrdersRequest::default() };
        let listed = listed_in_the_end(&shop, request).await;
        let states: Vec<_> = listed.iter().map(ViewedOrder::state).collect();
        assert_eq!(states, [OrderState::Approved], "once");
    }
    shop.fleet.stop().await;
}

/// The orders once the view is as far as the request's position token.
async fn listed_in_the_end(shop: &Shop, request: ListOrdersRequest) -> Vec<ViewedOrder> {
    let listed = async {
        loop {
            match shop.queries.clone().list_orders(request.clone()).await {
                Ok(response) => return response.into_inner().orders,
                Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
                Err(status) => panic!("{status}"),
            }
        }
    };
    timeout(STUCK, listed).await.expect("the lease of the dead has run out")
}
