//! Every rpc against a view that is folded from real streams: answers, pages, positions, and each error's exact code.

use std::time::Duration;

use meshwork::deadline::{self, Deadline};
use meshwork_shop::{
    contract::shop::{
        customer::v1::{CreditReserved, CustomerCreated},
        order::v1::{OrderApproved, OrderCreated, OrderRejected, RejectionReason},
        query::v1::{Projection, ProjectionState},
    },
    timestamp,
};
use tonic_types::StatusExt as _;

use super::*;
use crate::fixture::{Shop, id, usd};

impl Shop {
    async fn create_customer(&self, customer: u128) -> String {
        let created = CustomerCreated {
            customer_id: id(customer).to_string(),
            name: format!("customer {customer}"),
            credit_limit: Some(usd(1_500).into()),
            create_time: Some(timestamp(1_000)),
        };
        self.customers.emit(id(customer), &created).await
    }

    async fn create_order(&self, customer: u128, order: u128) -> String {
        let created = OrderCreated {
            order_id: id(order).to_string(),
            customer_id: id(customer).to_string(),
            total: Some(usd(1_234).into()),
            create_time: Some(timestamp(1_000)),
        };
        self.orders.emit(id(customer), &created).await
    }

    async fn approve_order(&self, customer: u128, order: u128) -> String {
        let approved = OrderApproved { order_id: id(order).to_string(), customer_id: id(customer).to_string() };
        self.orders.emit(id(customer), &approved).await
    }

    async fn get(&self, order: u128, position_token: &str) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: id(order).to_string(), position_token: position_token.into() };
        self.service.get_order(Request::new(request)).await.map(Response::into_inner)
    }

    async fn list(&self, request: ListOrdersRequest) -> Result<ListOrdersResponse, Status> {
        self.service.list_orders(Request::new(request)).await.map(Response::into_inner)
    }

    async fn history(&self, request: GetCustomerHistoryRequest) -> Result<GetCustomerHistoryResponse, Status> {
        self.service.get_customer_history(Request::new(request)).await.map(Response::into_inner)
    }

    /// The projection of orders, once it is in this state.
    async fn projection_in(&self, state: ProjectionState) -> Projection {
        let reached = async {
            loop {
                let projection = self.status("").await.expect("it answers").projections.remove(0);
                if projection.state() == state {
                    return projection;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it gets there")
    }

    async fn status(&self, position_token: &str) -> Result<GetProjectionStatusResponse, Status> {
        let request = GetProjectionStatusRequest { position_token: position_token.into() };
        self.service.get_projection_status(Request::new(request)).await.map(Response::into_inner)
    }
}

fn ids(orders: &[Order]) -> Vec<u128> {
    orders.iter().map(|order| Uuid::parse_str(&order.order_id).expect("an id").as_u128()).collect()
}

fn token(source: &str, store_id: &str, position: u64) -> String {
    PositionToken {
        source: source.into(),
        store_id: store_id.into(),
        partition: 3,
        position,
        ..PositionToken::default()
    }
    .to_text()
}

/// An error as its caller acts on it: code, reason, and the fields that are wrong.
fn error<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, Vec<String>) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has one");
    assert_eq!(info.domain, "query.shop");
    let fields = details.bad_request().map(|bad| bad.field_violations.iter().map(|v| v.field.clone()).collect());
    (status.code(), info.reason.clone(), fields.unwrap_or_default())
}

#[tokio::test]
async fn an_order_is_shown_with_its_customer_its_state_and_its_reason() {
    let shop = Shop::open().await;
    let customer = shop.create_customer(1).await;
    shop.status(&customer).await.expect("it answers");
    shop.create_order(1, 10).await;
    let rejected = OrderRejected {
        order_id: id(10).to_string(),
        customer_id: id(1).to_string(),
        reason: RejectionReason::InsufficientCredit.into(),
    };
    let position_token = shop.orders.emit(id(1), &rejected).await;

    let order = shop.get(10, &position_token).await.expect("it answers");

    let expected = Order {
        order_id: id(10).to_string(),
        customer_id: id(1).to_string(),
        customer_name: "customer 1".into(),
        total: Some(usd(1_234).into()),
        state: OrderState::Rejected.into(),
        rejection_reason: RejectionReason::InsufficientCredit.into(),
        create_time: Some(timestamp(1_000)),
        update_time: Some(timestamp(2_000)),
    };
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_caller_reads_its_own_writes_however_fresh_they_are() {
    let shop = Shop::open().await;
    for n in 1..=50 {
        let position_token = shop.create_order(n % 7, n).await;
        assert_eq!(shop.get(n, &position_token).await.expect("it answers").state(), OrderState::Pending);
        let position_token = shop.approve_order(n % 7, n).await;
        assert_eq!(shop.get(n, &position_token).await.expect("it answers").state(), OrderState::Approved);
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_their_tokens_belong_to_their_filter() {
    let shop = Shop::open().await;
    shop.create_customer(1).await;
    for order in 1..=9 {
        shop.create_order(1, order).await;
    }
    shop.create_order(2, 50).await;
    let position_token = shop.approve_order(1, 4).await;
    shop.get(4, &position_token).await.expect("it answers");
    let filter = ListOrdersRequest { customer_id: id(1).to_string(), page_size: 5, ..ListOrdersRequest::default() };

    let first = shop.list(filter.clone()).await.expect("it answers");
    assert_eq!(ids(&first.orders), [9, 8, 7, 6, 5]);
    let second = ListOrdersRequest { page_token: first.next_page_token, ..filter };
    let last = shop.list(second.clone()).await.expect("it answers");
    assert_eq!((ids(&last.orders), last.next_page_token), (vec![4, 3, 2, 1], String::new()));

    for other in [
        ListOrdersRequest { customer_id: String::new(), ..second.clone() },
        ListOrdersRequest { state: OrderState::Pending.into(), ..second.clone() },
    ] {
        let expected = (Code::InvalidArgument, "INVALID_FIELD".into(), vec!["page_token".into()]);
        assert_eq!(error(shop.list(other).await), expected);
    }
    let exact = ListOrdersRequest { page_size: 9, page_token: String::new(), ..second };
    assert_eq!(shop.list(exact).await.expect("it answers").next_page_token, "", "no empty page behind a full one");
    let approved = ListOrdersRequest { state: OrderState::Approved.into(), ..ListOrdersRequest::default() };
    assert_eq!(ids(&shop.list(approved).await.expect("it answers").orders), [4]);
}

#[tokio::test]
async fn a_customers_history_is_the_credit_that_is_left_and_its_orders() {
    let shop = Shop::open().await;
    shop.create_customer(1).await;
    let reserved = CreditReserved {
        customer_id: id(1).to_string(),
        order_id: id(10).to_string(),
        amount: Some(usd(1_234).into()),
        available_credit: Some(usd(266).into()),
    };
    let position_token = shop.customers.emit(id(1), &reserved).await;
    shop.status(&position_token).await.expect("it answers");
    shop.create_order(1, 10).await;
    let position_token = shop.create_order(1, 11).await;
    let request = GetCustomerHistoryRequest { customer_id: id(1).to_string(), page_size: 1, ..Default::default() };

    let first =
        shop.history(GetCustomerHistoryRequest { position_token, ..request.clone() }).await.expect("it answers");

    let customer = first.customer.expect("it is folded");
    assert_eq!((customer.name.as_str(), customer.create_time), ("customer 1", Some(timestamp(1_000))));
    assert_eq!(customer.credit_limit, Some(usd(1_500).into()));
    assert_eq!(customer.available_credit, Some(usd(266).into()));
    assert_eq!(ids(&first.orders), [11]);
    let page_token = first.next_page_token;
    let last = shop.history(GetCustomerHistoryRequest { page_token, ..request }).await.expect("it answers");
    assert_eq!((ids(&last.orders), last.next_page_token), (vec![10], String::new()));
}

#[tokio::test]
async fn all_that_is_wrong_with_a_malformed_request_is_reported() {
    let shop = Shop::open().await;
    let invalid = |fields: &[&str]| {
        let fields = fields.iter().map(ToString::to_string).collect::<Vec<_>>();
        (Code::InvalidArgument, "INVALID_FIELD".to_owned(), fields)
    };
    let get = GetOrderRequest { order_id: "10".into(), position_token: "?".into() };
    let result = shop.service.get_order(Request::new(get)).await;
    assert_eq!(error(result), invalid(&["order_id", "position_token"]));
    let result = shop.service.get_order(Request::new(GetOrderRequest::default())).await;
    assert_eq!(error(result), invalid(&["order_id"]));

    let list = ListOrdersRequest {
        customer_id: "me".into(),
        state: 77,
        page_size: -1,
        page_token: "?".into(),
        position_token: "?".into(),
    };
    assert_eq!(error(shop.list(list).await), invalid(&["customer_id", "state", "page_size", "position_token"]));
    let list = ListOrdersRequest { page_token: "?".into(), ..Default::default() };
    assert_eq!(error(shop.list(list).await), invalid(&["page_token"]));
    let forged = Page::token_after(&filter_key(OrderFilter::default()), b"short");
    let list = ListOrdersRequest { page_token: forged, ..Default::default() };
    assert_eq!(error(shop.list(list).await), invalid(&["page_token"]));

    let history = GetCustomerHistoryRequest { page_size: -1, ..Default::default() };
    assert_eq!(error(shop.history(history).await), invalid(&["customer_id", "page_size"]));
    let watch = WatchOrdersRequest { customer_id: "me".into(), position_token: "?".into() };
    let result = shop.service.watch_orders(Request::new(watch)).await.map(drop);
    assert_eq!(error(result), invalid(&["customer_id", "position_token"]));
    assert_eq!(error(shop.status("?").await), invalid(&["position_token"]));
}

#[tokio::test]
async fn what_the_view_has_not_seen_is_not_found() {
    let shop = Shop::open().await;
    assert_eq!(error(shop.get(404, "").await), (Code::NotFound, "UNKNOWN_ORDER".into(), vec![]));
    let request = GetCustomerHistoryRequest { customer_id: id(404).to_string(), ..Default::default() };
    assert_eq!(error(shop.history(request).await), (Code::NotFound, "UNKNOWN_CUSTOMER".into(), vec![]));
}

#[tokio::test]
async fn a_position_of_another_log_is_refused_at_once() {
    let shop = Shop::open().await;
    let position_token = shop.create_order(1, 10).await;
    shop.get(10, &position_token).await.expect("it answers");
    let unknown = (Code::InvalidArgument, "UNKNOWN_POSITION".to_owned(), vec!["position_token".to_owned()]);
    for other in [token("billing", shop.orders.store_id(), 1), token("order", "another store", 1)] {
        assert_eq!(error(shop.get(10, &other).await), unknown);
    }
}

#[tokio::test]
async fn a_view_that_does_not_catch_up_by_the_deadline_says_when_to_try_again() {
    let shop = Shop::open().await;
    let ahead = token("order", shop.orders.store_id(), 1_000);
    let deadline = Deadline::after(Duration::from_secs(1));
    let status = deadline::scope(deadline, shop.get(10, &ahead)).await.unwrap_err();
    assert!(!deadline.has_passed(), "the answer is on its way before the deadline");
    assert!(status.get_error_details().retry_info().and_then(|info| info.retry_delay).is_some());
    assert_eq!(error::<()>(Err(status)), (Code::Unavailable, "VIEW_BEHIND".into(), vec![]));
}

#[tokio::test]
async fn a_drain_ends_the_wait_for_a_position() {
    let shop = Shop::open().await;
    let ahead = token("order", shop.orders.store_id(), 1_000);
    shop.draining.cancel();
    let status = shop.get(10, &ahead).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_begins_once_the_view_has_come_to_its_position() {
    use futures_util::StreamExt as _;
    let shop = Shop::open().await;
    let position_token = shop.create_order(1, 10).await;
    let watch = WatchOrdersRequest { customer_id: id(1).to_string(), position_token };
    let mut stream = shop.service.watch_orders(Request::new(watch)).await.expect("it answers").into_inner();
    assert_eq!(stream.next().await.expect("it goes on").expect("an answer"), WatchOrdersResponse::default());
    shop.approve_order(1, 10).await;
    let next = stream.next().await.expect("it goes on").expect("an answer");
    assert_eq!((ids(&next.orders), next.orders[0].state()), (vec![10], OrderState::Approved));
}

#[tokio::test]
async fn the_status_says_how_far_each_source_was_folded() {
    let shop = Shop::open().await;
    shop.create_order(1, 10).await;
    let position_token = shop.create_order(1, 11).await;
    let folded = PositionToken::parse(&position_token).expect("a token");

    shop.projection_in(ProjectionState::Running).await;
    let status = shop.status(&position_token).await.expect("it answers");

    assert!(!status.view_id.is_empty());
    let sources: Vec<_> = status.projections.iter().map(|projection| projection.source.as_str()).collect();
    assert_eq!(sources, ["order", "customer"]);
    let orders = &status.projections[0];
    assert_eq!((orders.state(), orders.lag, orders.error.as_str()), (ProjectionState::Running, 0, ""));
    let partition = &orders.partitions[folded.partition as usize];
    assert_eq!((partition.partition, partition.applied, partition.head), (folded.partition, 2, 2));
}

#[tokio::test]
async fn an_event_that_makes_no_sense_stops_its_projection_loudly_and_loses_nothing() {
    let shop = Shop::open().await;
    let position_token = shop.create_order(1, 10).await;
    shop.get(10, &position_token).await.expect("it answers");
    shop.orders.emit(id(1), &OrderApproved { order_id: "?".into(), customer_id: id(1).to_string() }).await;

    let projection = shop.projection_in(ProjectionState::Stopped).await;
    assert!(projection.error.contains("must be a UUID"), "{}", projection.error);
    assert_eq!(projection.partitions.iter().map(|partition| partition.applied).sum::<u64>(), 1);
    assert_eq!(shop.get(10, "").await.expect("it answers").state(), OrderState::Pending, "reads go on");
}

/// The token of a past in which another event stood there.
fn of_another_past(token: &str) -> String {
    let token = PositionToken::parse(token).expect("a token");
    PositionToken { event_id: Uuid::now_v7().to_string(), ..token }.to_text()
}

#[tokio::test]
async fn a_token_of_what_the_log_has_lost_is_refused_whether_its_event_is_remembered_or_must_be_asked_for() {
    let shop = Shop::open().await;
    let lost = (Code::FailedPrecondition, "POSITION_LOST".to_owned(), vec![]);
    let first = shop.create_order(1, 10).await;
    shop.get(10, &first).await.expect("it answers");
    assert_eq!(error(shop.get(10, &of_another_past(&first)).await), lost);

    // More than are remembered, in one partition.
    let orders = (100..1_200).map(|order| shop.create_order(1, order));
    let last = futures_util::future::join_all(orders).await.pop().expect("some orders");
    shop.get(10, &last).await.expect("it answers");
    shop.get(10, &first).await.expect("it answers");
    assert_eq!(error(shop.get(10, &of_another_past(&first)).await), lost);
    let old = PositionToken { event_id: String::new(), ..PositionToken::parse(&first).expect("a token") }.to_text();
    shop.get(10, &old).await.expect("tokens of 0.1 are believed");

    let PositionToken { position, .. } = PositionToken::parse(&last).expect("a token");
    let beyond =
        PositionToken { position: position + 9, ..PositionToken::parse(&of_another_past(&last)).expect("a token") };
    let deadline = Deadline::after(Duration::from_millis(200));
    assert_eq!(error(deadline::scope(deadline, shop.get(10, &beyond.to_text())).await), lost);
}
