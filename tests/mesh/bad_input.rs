//! What callers get for requests that cannot be: the exact code, and details that say which field is wrong.

use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    customer::v1::{CreateCustomerRequest, GetCustomerRequest, ListCustomersRequest, UpdateCreditLimitRequest},
    order::v1::{CancelOrderRequest, CreateOrderRequest, GetOrderRequest, WatchOrderRequest},
    query::v1::{self as query, GetCustomerHistoryRequest, ListOrdersRequest},
    r#type::v1::Money,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::shop::{Shop, usd};

/// A case: what was sent, and the code, reason and fields that came back.
type Case = (&'static str, Status);

fn expect(cases: Vec<Case>, code: Code, reason: &str) {
    for (case, status) in cases {
        assert_eq!(status.code(), code, "{case}: {status}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{case}: no ErrorInfo"));
        assert_eq!(info.reason, reason, "{case}");
        if code == Code::InvalidArgument {
            let violations = details.bad_request().map_or(0, |request| request.field_violations.len());
            assert!(violations > 0, "{case}: no field is named");
        }
    }
}

fn money(currency_code: &str, units: i64, nanos: i32) -> Option<Money> {
    Some(Money { currency_code: currency_code.into(), units, nanos })
}

on_both_stores!(
    flavor = "multi_thread";
    a_malformed_amount_is_an_invalid_argument_that_names_the_field,
    a_malformed_id_page_or_token_is_an_invalid_argument_that_names_the_field,
    an_unknown_id_is_not_found,
    a_request_id_returns_its_resource_and_refuses_another_body,
    an_oversized_request_is_refused_and_the_connection_goes_on,
);

async fn a_malformed_amount_is_an_invalid_argument_that_names_the_field(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let amounts = [
        ("missing", None),
        ("no currency", money("", 1, 0)),
        ("unknown currency", money("XYZ", 1, 0)),
        ("lower case currency", money("usd", 1, 0)),
        ("negative units", money("USD", -1, 0)),
        ("negative nanos", money("USD", 0, -10_000_000)),
        ("finer than a cent", money("USD", 1, 1)),
        ("finer than a won", money("KRW", 1, 10_000_000)),
        ("nanos out of range", money("USD", 1, 1_000_000_000)),
        ("too large", money("USD", i64::MAX, 0)),
    ];
    let mut refused = Vec::new();
    for (case, amount) in amounts {
        let request = CreateOrderRequest {
            customer_id: Uuid::now_v7().to_string(),
            total: amount.clone(),
            request_id: String::new(),
        };
        refused.push((case, shop.orders.clone().create_order(request).await.expect_err(case)));
        let request = CreateCustomerRequest { name: "Ada".into(), credit_limit: amount, request_id: String::new() };
        refused.push((case, shop.customers.clone().create_customer(request).await.expect_err(case)));
    }
    let request =
        CreateOrderRequest { customer_id: Uuid::now_v7().to_string(), total: Some(usd(0)), request_id: String::new() };
    refused.push(("an order of nothing", shop.orders.clone().create_order(request).await.expect_err("refused")));
    expect(refused, Code::InvalidArgument, "INVALID_FIELD");
    shop.fleet.stop().await;
}

async fn a_malformed_id_page_or_token_is_an_invalid_argument_that_names_the_field(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let (mut customers, mut orders, mut queries) = (shop.customers.clone(), shop.orders.clone(), shop.queries.clone());
    let bad = || "x".to_owned();
    let customer_id = Uuid::now_v7().to_string();
    let refused: Vec<Case> = vec![
        ("empty order", orders.create_order(CreateOrderRequest::default()).await.expect_err("refused")),
        ("empty customer", customers.create_customer(CreateCustomerRequest::default()).await.expect_err("refused")),
        ("order id", orders.get_order(GetOrderRequest { order_id: bad() }).await.expect_err("refused")),
        ("no order id", orders.get_order(GetOrderRequest::default()).await.expect_err("refused")),
        ("cancel", orders.cancel_order(CancelOrderRequest { order_id: bad() }).await.expect_err("refused")),
        ("watch", orders.watch_order(WatchOrderRequest { order_id: bad() }).await.expect_err("refused")),
        ("customer id", customers.get_customer(GetCustomerRequest { customer_id: bad() }).await.expect_err("refused")),
        (
            "limit without a customer",
            customers.update_credit_limit(UpdateCreditLimitRequest::default()).await.expect_err("refused"),
        ),
        (
            "negative page",
            customers
                .list_customers(ListCustomersRequest { page_size: -1, page_token: String::new() })
                .await
                .expect_err("refused"),
        ),
        (
            "page token",
            customers
                .list_customers(ListCustomersRequest { page_size: 1, page_token: bad() })
                .await
                .expect_err("refused"),
        ),
        (
            "query page token",
            queries
                .list_orders(ListOrdersRequest { page_token: bad(), ..ListOrdersRequest::default() })
                .await
                .expect_err("refused"),
        ),
        (
            "unknown state",
            queries
                .list_orders(ListOrdersRequest { state: 99, ..ListOrdersRequest::default() })
                .await
                .expect_err("refused"),
        ),
        (
            "position token",
            queries
                .get_order(query::GetOrderRequest { order_id: customer_id.clone(), position_token: bad() })
                .await
                .expect_err("refused"),
        ),
        (
            "history without a customer",
            queries.get_customer_history(GetCustomerHistoryRequest::default()).await.expect_err("refused"),
        ),
        (
            "request id",
            orders
                .create_order(CreateOrderRequest { customer_id, total: Some(usd(1)), request_id: bad() })
                .await
                .expect_err("refused"),
        ),
    ];
    expect(refused, Code::InvalidArgument, "INVALID_FIELD");
    shop.fleet.stop().await;
}

async fn an_unknown_id_is_not_found(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let id = || Uuid::now_v7().to_string();
    let unknown_order: Vec<Case> = vec![
        ("get", shop.orders.clone().get_order(GetOrderRequest { order_id: id() }).await.expect_err("unknown")),
        ("cancel", shop.cancel(&id()).await.expect_err("unknown")),
        ("watch", shop.orders.clone().watch_order(WatchOrderRequest { order_id: id() }).await.expect_err("unknown")),
        (
            "query",
            shop.queries
                .clone()
                .get_order(query::GetOrderRequest { order_id: id(), ..Default::default() })
                .await
                .expect_err("unknown"),
        ),
    ];
    expect(unknown_order, Code::NotFound, "UNKNOWN_ORDER");
    let unknown_customer: Vec<Case> = vec![
        (
            "get",
            shop.customers.clone().get_customer(GetCustomerRequest { customer_id: id() }).await.expect_err("unknown"),
        ),
        (
            "history",
            shop.queries
                .clone()
                .get_customer_history(GetCustomerHistoryRequest { customer_id: id(), ..Default::default() })
                .await
                .expect_err("unknown"),
        ),
    ];
    expect(unknown_customer, Code::NotFound, "UNKNOWN_CUSTOMER");
    shop.fleet.stop().await;
}

async fn a_request_id_returns_its_resource_and_refuses_another_body(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let request_id = Uuid::now_v7().to_string();
    let request = |cents| CreateOrderRequest {
        customer_id: "0192f4b0-0000-7000-8000-000000000001".into(),
        total: Some(usd(cents)),
        request_id: request_id.clone(),
    };
    let mut orders = shop.orders.clone();
    let first = orders.create_order(request(100)).await.expect("created").into_inner();
    let again = orders.create_order(request(100)).await.expect("the same").into_inner();
    assert_eq!(first.order_id, again.order_id);
    let reused = orders.create_order(request(200)).await.expect_err("another body");
    expect(vec![("another total", reused)], Code::InvalidArgument, "REQUEST_ID_REUSED");
    shop.fleet.stop().await;
}

async fn an_oversized_request_is_refused_and_the_connection_goes_on(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let request =
        CreateCustomerRequest { name: "x".repeat(8 << 20), credit_limit: Some(usd(1)), request_id: String::new() };
    let status = shop.customers.clone().create_customer(request).await.expect_err("too large");
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange), "{status}");
    shop.customer(usd(1)).await;
    shop.fleet.stop().await;
}
