//! Events become inputs, or errors that say what is wrong.

use meshwork_shop::{Currency, timestamp};
use prost::{Message, Name};
use uuid::Uuid;

use super::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn usd(minor: i64) -> Amount {
    Amount::new(minor, Currency::from_code("USD").expect("a currency")).expect("an amount")
}

fn event<M: Message + Name>(payload: &M) -> Event {
    Event {
        partition: 3,
        position: 9,
        r#type: M::full_name(),
        create_time: Some(timestamp(2_000)),
        payload: Some(prost_types::Any { type_url: M::type_url(), value: payload.encode_to_vec() }),
        ..Event::default()
    }
}

fn created() -> OrderCreated {
    OrderCreated {
        order_id: id(1).to_string(),
        customer_id: id(2).to_string(),
        total: Some(usd(1_234).into()),
        create_time: Some(timestamp(1_234)),
    }
}

#[test]
fn an_event_becomes_an_input_with_its_place() {
    let input = input(&event(&created())).expect("readable");
    let expected = Input::Order(OrderEvent {
        order_id: id(1),
        customer_id: id(2),
        time_ms: 2_000,
        partition: 3,
        position: 9,
        change: OrderChange::Created(domain::OrderCreated { total: usd(1_234), create_time_ms: 1_234 }),
    });
    assert_eq!(input, expected);
}

#[test]
fn a_malformed_event_is_an_error_that_says_what_is_wrong() {
    let approved = event(&OrderApproved::default());
    let cases: [(Event, &str); 7] = [
        (Event { r#type: "shop.order.v1.OrderLost".into(), ..approved.clone() }, "OrderLost"),
        (Event { payload: None, ..approved.clone() }, "payload is missing"),
        (
            Event {
                payload: Some(prost_types::Any { type_url: String::new(), value: vec![0xff] }),
                ..approved.clone()
            },
            "payload: failed to decode",
        ),
        (approved, "must be a UUID"),
        (event(&OrderCreated { total: None, ..created() }), "total"),
        (
            event(&OrderCreated {
                create_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
                ..created()
            }),
            "create_time",
        ),
        (event(&OrderCreated { customer_id: "me".into(), ..created() }), "must be a UUID"),
    ];
    for (event, expected) in cases {
        let error = input(&event).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} in {error:?}");
    }
}

#[test]
fn the_names_asked_for_are_those_of_the_contract() {
    let orders = [
        OrderCreated::full_name(),
        OrderApproved::full_name(),
        OrderRejected::full_name(),
        OrderCancelled::full_name(),
    ];
    assert_eq!(ORDER_EVENTS.as_slice(), orders.as_slice());
    let customers = [
        CustomerCreated::full_name(),
        CreditLimitUpdated::full_name(),
        CreditReserved::full_name(),
        CreditReleased::full_name(),
    ];
    assert_eq!(CUSTOMER_EVENTS.as_slice(), customers.as_slice());
}
