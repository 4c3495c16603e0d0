//! The fold's promises: any order of delivery, with repeats, gives the same view.

use meshwork_shop::{
    Amount, Currency,
    contract::shop::order::v1::{OrderState, RejectionReason},
};
use proptest::{prelude::*, sample::Index};

use super::*;

const CUSTOMERS: u8 = 3;
const ORDERS: u8 = 6;

fn id(kind: u8, n: u8) -> Uuid {
    Uuid::from_bytes([kind, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn usd(minor: i64) -> Amount {
    Amount::new(minor, Currency::from_code("USD").expect("a currency")).expect("an amount")
}

/// The order service's stream: each order is created, and then goes through `steps`.
fn order_stream(steps: &[(u8, u8)]) -> Vec<Input> {
    let mut versions = [0_u64; ORDERS as usize];
    let mut stream = Vec::new();
    for (order, step) in steps {
        let version = &mut versions[usize::from(*order)];
        *version += 1;
        let position = stream.len() as u64 + 1;
        let time_ms = 1_000 + i64::try_from(position).expect("small");
        let change = match (*version, step) {
            (1, _) => {
                OrderChange::Created(OrderCreated { total: usd(100 + i64::from(*order)), create_time_ms: time_ms })
            }
            (_, 0) => OrderChange::Approved,
            (_, 1) => OrderChange::Rejected(RejectionReason::InsufficientCredit),
            (_, _) => OrderChange::Cancelled,
        };
        stream.push(Input::Order(OrderEvent {
            order_id: id(1, *order),
            customer_id: id(2, order % CUSTOMERS),
            time_ms,
            partition: 0,
            position,
            change,
        }));
    }
    stream
}

/// The customer service's stream: each customer is created, and then goes through `steps`.
fn customer_stream(steps: &[(u8, u8)]) -> Vec<Input> {
    let mut versions = [0_u64; CUSTOMERS as usize];
    let mut stream = Vec::new();
    for (customer, step) in steps {
        let version = &mut versions[usize::from(*customer)];
        *version += 1;
        let available = usd(i64::from(*step) * 7 + i64::try_from(*version).expect("small"));
        let created = CustomerCreated { name: format!("customer {customer}"), create_time_ms: 5 };
        let change = match (*version, step) {
            (1, _) => CustomerChange::Created(created, usd(1_000)),
            (_, 0) => CustomerChange::LimitUpdated { limit: usd(2_000), available },
            (_, _) => CustomerChange::AvailableChanged { available },
        };
        let position = stream.len() as u64 + 1;
        stream.push(Input::Customer(CustomerEvent { customer_id: id(2, *customer), position, change }));
    }
    stream
}

/// The rows after `inputs`, in key order.
fn view<'a>(inputs: impl IntoIterator<Item = &'a Input>) -> Vec<(Key, Row)> {
    let mut rows = Rows::default();
    let mut keys = std::collections::BTreeSet::new();
    for input in inputs {
        if let Some(row) = fold(&rows, input) {
            rows.insert(input.key(), row);
            keys.insert(input.key());
        }
    }
    keys.into_iter().map(|key| (key, rows.remove(&key).expect("it was inserted"))).collect()
}

fn steps(things: u8) -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..things, 0..4_u8), 0..40)
}

proptest! {
    #[test]
    fn any_interleaving_of_the_two_streams_with_repeats_gives_the_same_view(
        order_steps in steps(ORDERS),
        customer_steps in steps(CUSTOMERS),
        from_orders in prop::collection::vec(any::<bool>(), 80),
        repeats in prop::collection::vec(any::<Index>(), 80),
    ) {
        let (orders, customers) = (order_stream(&order_steps), customer_stream(&customer_steps));
        let expected = view(orders.iter().chain(&customers));

        let mut delivered: Vec<&Input> = Vec::new();
        let (mut left, mut right) = (orders.iter().peekable(), customers.iter().peekable());
        for (take_order, repeat) in from_orders.iter().zip(&repeats) {
            let next = if *take_order { left.next().or_else(|| right.next()) } else { right.next().or_else(|| left.next()) };
            delivered.extend(next);
            if !delivered.is_empty() {
                delivered.push(delivered[repeat.index(delivered.len())]);
            }
        }

        prop_assert_eq!(view(delivered.iter().copied()), expected);
    }

    #[test]
    fn even_events_out_of_their_streams_order_end_in_the_same_view(
        order_steps in steps(ORDERS),
        customer_steps in steps(CUSTOMERS),
        shuffle in prop::collection::vec(any::<u64>(), 80),
    ) {
        let inputs: Vec<_> = order_stream(&order_steps).into_iter().chain(customer_stream(&customer_steps)).collect();
        let mut late: Vec<_> = shuffle.iter().zip(&inputs).collect();
        late.sort_by_key(|(key, _)| **key);

        prop_assert_eq!(view(late.into_iter().map(|(_, input)| input)), view(&inputs));
    }
}

#[test]
fn an_order_ends_in_the_state_of_its_last_event_with_its_reason() {
    let stream = order_stream(&[(0, 0), (0, 1), (1, 0), (1, 0), (1, 2)]);
    let rows = view(&stream);
    let states: Vec<_> = rows
        .iter()
        .map(|(_, row)| match row {
            Row::Order(row) => (row.state, row.reason, row.position, row.update_time_ms),
            Row::Customer(row) => panic!("{row:?}"),
        })
        .collect();
    assert_eq!(
        states,
        [
            (OrderState::Rejected, RejectionReason::InsufficientCredit, 2, 1_002),
            (OrderState::Cancelled, RejectionReason::Unspecified, 5, 1_005),
        ]
    );
}

#[test]
fn a_repeat_is_no_change_at_all() {
    let stream = order_stream(&[(0, 0), (0, 0)]);
    let rows: Rows<Key, Row> = view(&stream).into_iter().collect();
    assert!(stream.iter().all(|input| fold(&rows, input).is_none()));
}
