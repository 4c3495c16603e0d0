//! The events of orders that this service reads, and what each means here.

use meshwork::contract::meshwork::event::v1::{Event, GroupLifetime};
use meshwork_events::consumer::{MalformedEvent, Source, decode_event, event_id};
use meshwork_shop::{
    Amount,
    contract::shop::order::v1::{OrderCancelled, OrderCreated, OrderRejected},
    now_ms,
};
use prost::Name as _;

use crate::{
    SERVICE,
    domain::{Customers, Input},
};

/// The order service's events that concern credit.
pub(crate) fn orders() -> Source<Customers> {
    Source {
        name: "order",
        group: SERVICE.into(),
        lifetime: GroupLifetime::Durable,
        types: vec![OrderCreated::full_name(), OrderCancelled::full_name(), OrderRejected::full_name()],
        decode: input,
    }
}

fn input(event: &Event) -> Result<Input, MalformedEvent> {
    if event.r#type == OrderCreated::full_name() {
        let OrderCreated { order_id, customer_id, total, .. } = decode_event(event)?;
        let total = total.ok_or_else(|| MalformedEvent::new("total is missing"))?;
        let total = Amount::try_from(&total).map_err(|error| MalformedEvent::new(format!("total: {error}")))?;
        let (order_id, customer_id) = (event_id(&order_id)?, event_id(&customer_id)?);
        return Ok(Input::OrderCreated { order_id, customer_id, total, now_ms: now_ms() });
    }
    let (order_id, customer_id) = if event.r#type == OrderCancelled::full_name() {
        let OrderCancelled { order_id, customer_id } = decode_event(event)?;
        (order_id, customer_id)
    } else {
        let OrderRejected { order_id, customer_id, .. } = decode_event(event)?;
        (order_id, customer_id)
    };
    Ok(Input::OrderEnded { order_id: event_id(&order_id)?, customer_id: event_id(&customer_id)?, now_ms: now_ms() })
}

#[cfg(test)]
mod tests {
    use meshwork_shop::contract::shop::{order::v1::RejectionReason, r#type::v1::Money};
    use prost::{Message, Name};
    use prost_types::Any;
    use uuid::Uuid;

    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);
    const CUSTOMER: Uuid = Uuid::from_u128(2);

    fn event<M: Message + Name>(payload: &M) -> Event {
        let payload = Any { type_url: String::new(), value: payload.encode_to_vec() };
        Event { r#type: M::full_name(), payload: Some(payload), ..Event::default() }
    }

    fn created(currency_code: &str, customer_id: &str) -> OrderCreated {
        let total = Some(Money { currency_code: currency_code.into(), units: 12, nanos: 0 });
        OrderCreated { order_id: ORDER.to_string(), customer_id: customer_id.into(), total, create_time: None }
    }

    #[test]
    fn a_new_order_wants_credit_and_every_end_of_one_gives_it_back() {
        let wants = input(&event(&created("USD", &CUSTOMER.to_string()))).expect("understood");
        assert!(matches!(wants, Input::OrderCreated { order_id: ORDER, customer_id: CUSTOMER, total, .. }
            if total.minor() == 1200));

        let (order_id, customer_id) = (ORDER.to_string(), CUSTOMER.to_string());
        let reason = RejectionReason::TimedOut.into();
        for event in [
            event(&OrderRejected { order_id: order_id.clone(), customer_id: customer_id.clone(), reason }),
            event(&OrderCancelled { order_id, customer_id }),
        ] {
            let ends = input(&event).expect("understood");
            assert!(matches!(ends, Input::OrderEnded { order_id: ORDER, customer_id: CUSTOMER, .. }));
        }
    }

    #[test]
    fn what_is_not_understood_is_malformed_and_never_guessed() {
        let not_ours = Event { r#type: "shop.order.v1.OrderShipped".into(), ..Event::default() };
        let empty = Event { payload: None, ..event(&OrderCancelled::default()) };
        let customer = CUSTOMER.to_string();
        for event in [not_ours, empty, event(&created("XYZ", &customer)), event(&created("USD", "x"))] {
            input(&event).expect_err("malformed");
        }
    }
}
