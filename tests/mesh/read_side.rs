//! The read side: what it shows, and that it never shows less than its caller knows.

use meshwork::contract::shop::{
    order::v1::{OrderState, RejectionReason},
    query::v1::{
        GetCustomerHistoryRequest, GetOrderRequest, GetProjectionStatusRequest, ListOrdersRequest, ProjectionState,
    },
};

use crate::shop::{Shop, usd};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_a_position_token_sees_what_its_caller_wrote() {
    let shop = Shop::open(2).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_history_shows_every_order_with_its_reason_page_by_page() {
    let shop = Shop::open(1).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_by_state_and_the_projection_says_how_far_it_is() {
    let shop = Shop::open(1).await;
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
