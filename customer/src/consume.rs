//! What this service hears of orders: which events it reads, and what each means here.

use meshwork::{
    contract::{
        meshwork::event::v1::{Event, GroupLifetime},
        shop::order::v1::{OrderCancelled, OrderCreated, OrderRejected},
    },
    event::{MalformedEvent, Source},
};
use meshwork_shop::{Amount, decode_event, event_id, now_ms};
use prost::Name as _;

use crate::{SERVICE, decider::Customers, domain::Input};

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
