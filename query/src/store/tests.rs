//! Rows come back as they were written; every filter reads its page, in order, through an index.

use meshwork_events::store::Sql;
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};
use uuid::Uuid;

use super::*;
use crate::{
    domain::{CustomerCreated, CustomerRow, Key, OrderCreated, OrderRow, Row},
    fixture::{id, usd, view},
};

const STATES: [OrderState; 4] =
    [OrderState::Pending, OrderState::Approved, OrderState::Rejected, OrderState::Cancelled];

fn order_row(customer: u128, state: OrderState, position: u64) -> OrderRow {
    OrderRow {
        customer_id: id(customer),
        created: Some(OrderCreated { total: usd(1_234), create_time_ms: 1_000 }),
        state,
        reason: RejectionReason::Unspecified,
        update_time_ms: 2_000,
        partition: 3,
        position,
    }
}

fn customer_row(name: &str) -> CustomerRow {
    CustomerRow {
        created: Some(CustomerCreated { name: name.into(), create_time_ms: 1_000 }),
        limit: Some(usd(5_000)),
        limit_position: 1,
        available: Some(usd(4_000)),
        position: 7,
    }
}

async fn write(store: &crate::Store, rows: &[(Key, Row)]) {
    let mut tx = store.database().begin().await.expect("the view answers");
    save(&mut *tx, rows).await.expect("the view answers");
    tx.commit().await.expect("the view answers");
}

#[tokio::test]
async fn rows_come_back_as_they_were_written_complete_or_partial() {
    let (_dir, store) = view().await;
    let partial_order = OrderRow { created: None, ..order_row(9, OrderState::Approved, 2) };
    let partial_customer = CustomerRow { created: None, limit: None, limit_position: 0, ..customer_row("") };
    let rejected = OrderRow { reason: RejectionReason::TimedOut, ..order_row(9, OrderState::Rejected, 3) };
    let rows = vec![
        (Key::Order(id(1)), Row::Order(partial_order)),
        (Key::Order(id(2)), Row::Order(rejected)),
        (Key::Customer(id(1)), Row::Customer(partial_customer)),
        (Key::Customer(id(2)), Row::Customer(customer_row("Ann"))),
    ];
    // Twice: the second time every row is there already, and all of it is replaced.
    let before = [
        (Key::Order(id(1)), Row::Order(OrderRow { created: None, ..order_row(9, OrderState::Pending, 1) })),
        (Key::Order(id(2)), Row::Order(OrderRow { created: None, ..order_row(9, OrderState::Pending, 1) })),
        (Key::Customer(id(1)), Row::Customer(CustomerRow::default())),
        (Key::Customer(id(2)), Row::Customer(CustomerRow::default())),
    ];
    write(&store, &before).await;
    write(&store, &rows).await;

    let mut tx = store.database().begin().await.expect("the view answers");
    let mut keys: Vec<_> = rows.iter().map(|(key, _)| *key).collect();
    keys.insert(2, Key::Order(id(3)));
    assert_eq!(load(&mut *tx, &keys).await.expect("the view answers"), rows);
}

#[tokio::test]
async fn a_batch_larger_than_a_statement_is_written_and_loaded_whole() {
    let (_dir, store) = view().await;
    let rows: Vec<_> =
        (1..=4_100).map(|n| (Key::Order(id(n)), Row::Order(order_row(9, OrderState::Pending, 1)))).collect();
    write(&store, &rows).await;
    let mut tx = store.database().begin().await.expect("the view answers");
    let keys: Vec<_> = rows.iter().map(|(key, _)| *key).collect();
    assert_eq!(load(&mut *tx, &keys).await.expect("the view answers"), rows);
}

#[tokio::test]
async fn every_filter_lists_its_orders_newest_first_page_by_page() {
    let (_dir, store) = view().await;
    let mut rows: Vec<(u128, OrderRow)> =
        (1..=60).map(|n| (n, order_row(n % 3, STATES[n as usize % 4], n as u64))).collect();
    rows.push((61, OrderRow { created: None, ..order_row(1, OrderState::Approved, 61) }));
    let keyed: Vec<_> = rows.iter().map(|(n, row)| (Key::Order(id(*n)), Row::Order(*row))).collect();
    write(&store, &keyed).await;

    let customers = [None, Some(id(0)), Some(id(1)), Some(id(9))];
    let states = [None, Some(STATES[0]), Some(STATES[1]), Some(STATES[2]), Some(STATES[3])];
    for (customer_id, state) in customers.iter().flat_map(|c| states.map(|s| (*c, s))) {
        let filter = OrderFilter { customer_id, state };
        let wanted = |row: &OrderRow| {
            row.created.is_some()
                && customer_id.is_none_or(|id| id == row.customer_id)
                && state.is_none_or(|state| state == row.state)
        };
        let expected: Vec<Uuid> = rows.iter().rev().filter(|(_, row)| wanted(row)).map(|(n, _)| id(*n)).collect();

        let mut listed: Vec<Uuid> = Vec::new();
        loop {
            let page = orders(&**store.database(), filter, listed.last().copied(), 7).await.expect("the view answers");
            listed.extend(page.iter().map(|order| order.order_id));
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(listed, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn every_filter_reads_through_an_index_and_sorts_no_more_than_a_page() {
    let (_dir, store) = view().await;
    for (customer_id, state) in
        [(None, None), (Some(id(1)), None), (None, Some(STATES[0])), (Some(id(1)), Some(STATES[0]))]
    {
        let sql = read::page(OrderFilter { customer_id, state }, Some(id(7)), 50);
        let explain =
            format!("explain query plan {}", sql.text().replace('?', "x'00'").replace("limit x'00'", "limit 50"));
        let plan = store.database().read(Sql::new(explain)).await.expect("the view answers");
        let steps: Vec<_> = plan.iter().map(|row| row.text(3).expect("a text").to_owned()).collect();
        let reads: Vec<_> = steps.iter().filter(|step| step.contains("order_view")).collect();
        assert!(!reads.is_empty(), "{steps:?}");
        assert!(reads.iter().all(|step| step.starts_with("SEARCH") && step.contains("USING INDEX")), "{steps:?}");
        // Only what came out of the limits may be sorted once more.
        let sorted = steps.windows(2).any(|pair| pair[0].contains("order_view") && pair[1].contains("TEMP B-TREE"));
        assert!(!sorted, "{steps:?}");
    }
}

#[tokio::test]
async fn an_order_carries_its_customers_name_as_soon_as_both_are_known() {
    let (_dir, store) = view().await;
    let database = &**store.database();
    write(&store, &[(Key::Order(id(1)), Row::Order(order_row(2, OrderState::Pending, 1)))]).await;
    assert_eq!(order(database, id(1)).await.expect("the view answers").expect("it was written").customer_name, "");
    write(&store, &[(Key::Customer(id(2)), Row::Customer(customer_row("Ann")))]).await;
    assert_eq!(order(database, id(1)).await.expect("the view answers").expect("it was written").customer_name, "Ann");
    assert_eq!(customer_names(database, [id(2), id(3)]).await.expect("the view answers"), [(id(2), "Ann".to_owned())]);
}

#[tokio::test]
async fn what_is_partial_is_not_shown() {
    let (_dir, store) = view().await;
    let partial = OrderRow { created: None, ..order_row(2, OrderState::Approved, 1) };
    let customer_row = CustomerRow { created: None, ..customer_row("") };
    let rows = [(Key::Order(id(1)), Row::Order(partial)), (Key::Customer(id(2)), Row::Customer(customer_row))];
    write(&store, &rows).await;
    assert_eq!(order(&**store.database(), id(1)).await.expect("the view answers"), None);
    assert_eq!(customer(&**store.database(), id(2)).await.expect("the view answers"), None);
}

#[tokio::test]
async fn changed_orders_are_exactly_those_in_the_spans() {
    let (_dir, store) = view().await;
    let rows: Vec<_> = (1..=20_u128)
        .map(|n| {
            let row = OrderRow { partition: (n % 2) as u32, ..order_row(n % 4, OrderState::Pending, n as u64) };
            (Key::Order(id(n)), Row::Order(row))
        })
        .collect();
    write(&store, &rows).await;
    let spans = [Span { partition: 0, after: 4, through: 12 }, Span { partition: 1, after: 15, through: 99 }];
    let changed = async |customer_id, after, limit| {
        let orders =
            changed_orders(&**store.database(), customer_id, &spans, after, limit).await.expect("the view answers");
        orders.iter().map(|order| order.order_id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(changed(None, None, 100).await, [6, 8, 10, 12, 17, 19]);
    assert_eq!(changed(None, Some(id(8)), 3).await, [10, 12, 17]);
    assert_eq!(changed(Some(id(2)), None, 100).await, [6, 10]);
}
