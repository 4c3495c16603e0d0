//! Databases as earlier releases wrote them (`tests/fixtures/write`) are opened, and what was under way in them is finished.

use std::{
    fs,
    path::{Path, PathBuf},
};

use meshwork_cli::fleet::{Databases, Views};
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    customer::v1::ListCustomersRequest,
    order::v1::{Order, OrderState},
};
use tokio::time::timeout;

use crate::shop::{Home, STUCK, Shop, usd};

on_both_stores!(
    flavor = "multi_thread";
    databases_of_earlier_releases_are_opened_and_each_order_in_them_ends_as_it_must,
);

/// How the fixture says that an order must end: it does not, where the time of the opening decides.
const ENDED: &str = "ENDED";

/// The fixtures of each earlier release.
fn releases(store: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs::read_dir(folder).expect("fixtures").map(|entry| entry.expect("readable").path());
    let releases: Vec<_> = entries.filter(|path| path.is_dir()).map(|path| path.join(store)).collect();
    assert!(!releases.is_empty());
    releases
}

/// A shop on copies of a fixture's databases.
async fn open(engine: &Engine, fixture: &Path) -> Shop {
    let home = Home::new(engine);
    match engine {
        Engine::Sqlite => {
            for (from, to) in [("customer", "customer"), ("order", "order"), ("query", "query-1")] {
                let copy = home.folder().join(format!("{to}.db"));
                fs::copy(fixture.join(format!("{from}.db")), copy).expect("copied");
            }
        }
        Engine::Postgres(_) => {
            for service in ["customer", "order", "query"] {
                let statements = fs::read_to_string(fixture.join(format!("{service}.sql"))).expect("readable");
                home.place().filled(service, statements).await;
            }
        }
    }
    Shop::open_in(home, 2, |config| {
        if let Databases::Postgres { views, .. } = &mut config.databases {
            *views = Views::Shared;
        }
    })
    .await
}

async fn databases_of_earlier_releases_are_opened_and_each_order_in_them_ends_as_it_must(engine: Engine) {
    let store = match &engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres(_) => "postgres",
    };
    for fixture in releases(store) {
        let shop = open(&engine, &fixture).await;
        let orders = fs::read_to_string(fixture.join("orders")).expect("readable");
        let mut ended = Vec::new();
        for line in orders.lines() {
            let (order_id, end) = line.split_once(' ').expect("an id and how it ends");
            let order = shop.settled(order_id).await;
            if end != ENDED {
                assert_eq!(said(&order), end, "{order_id} of {}", fixture.display());
            }
            let seen = shop.viewed(order_id, &order.position_token).await.expect("seen");
            assert_eq!((seen.state(), seen.rejection_reason()), (order.state(), order.rejection_reason()));
            ended.push(order);
        }
        expect_exactly_the_approved_to_hold_credit(&shop, &ended).await;

        let customer = shop.customer(usd(1_000)).await;
        let new = shop.settled_order(&customer.customer_id, usd(1_000)).await;
        assert_eq!(new.state(), OrderState::Approved, "and life goes on");
        shop.fleet.stop().await;
    }
}

/// A state and its reason, without the prefixes of their enums.
fn said(order: &Order) -> String {
    let state = order.state().as_str_name().trim_start_matches("ORDER_STATE_");
    match order.state() {
        OrderState::Rejected => {
            let reason = order.rejection_reason().as_str_name().trim_start_matches("REJECTION_REASON_");
            format!("{state} {reason}")
        }
        _ => state.to_owned(),
    }
}

async fn expect_exactly_the_approved_to_hold_credit(shop: &Shop, orders: &[Order]) {
    let list = ListCustomersRequest { page_size: 100, ..ListCustomersRequest::default() };
    let customers = shop.customers.clone().list_customers(list).await.expect("listed").into_inner().customers;
    assert!(!customers.is_empty());
    for customer in customers {
        let approved = orders
            .iter()
            .filter(|order| order.customer_id == customer.customer_id && order.state() == OrderState::Approved);
        let held: i64 = approved.map(|order| order.total.as_ref().expect("set").units).sum();
        let limit = customer.credit_limit.clone().expect("set").units;
        let left = async {
            while shop.get_customer(&customer.customer_id).await.available_credit.expect("set").units != limit - held {}
        };
        assert!(timeout(STUCK, left).await.is_ok(), "{held} of {limit} are approved: {customer:?}");
    }
}
