//! What the view hears of orders and customers: which events it reads, and what each means here.
//!
//! An event that makes no sense is an error, which stops its partition: guessing would make the view wrong for good.

use meshwork::contract::meshwork::event::v1::{Event, GroupLifetime};
use meshwork_events::consumer::{MalformedEvent, Source, decode_event, event_id};
use meshwork_shop::{
    Amount,
    contract::shop::{
        customer::v1::{CreditLimitUpdated, CreditReleased, CreditReserved, CustomerCreated},
        order::v1::{OrderApproved, OrderCancelled, OrderCreated, OrderRejected, RejectionReason},
        r#type::v1::Money,
    },
};
use prost_types::Timestamp;

use crate::{
    domain::{self, CustomerChange, CustomerEvent, Input, OrderChange, OrderEvent},
    view::View,
};

/// The service whose events are folded into orders.
pub(crate) const ORDER_SERVICE: &str = "order";

const ORDER_CREATED: &str = "shop.order.v1.OrderCreated";
const ORDER_APPROVED: &str = "shop.order.v1.OrderApproved";
const ORDER_REJECTED: &str = "shop.order.v1.OrderRejected";
const ORDER_CANCELLED: &str = "shop.order.v1.OrderCancelled";
const CUSTOMER_CREATED: &str = "shop.customer.v1.CustomerCreated";
const CREDIT_LIMIT_UPDATED: &str = "shop.customer.v1.CreditLimitUpdated";
const CREDIT_RESERVED: &str = "shop.customer.v1.CreditReserved";
const CREDIT_RELEASED: &str = "shop.customer.v1.CreditReleased";

/// The order service's events.
const ORDER_EVENTS: [&str; 4] = [ORDER_CREATED, ORDER_APPROVED, ORDER_REJECTED, ORDER_CANCELLED];

/// The customer service's events. Not `CreditRefused`: it changes no credit line, and the order's own stream says why the
/// order was rejected.
const CUSTOMER_EVENTS: [&str; 4] = [CUSTOMER_CREATED, CREDIT_LIMIT_UPDATED, CREDIT_RESERVED, CREDIT_RELEASED];

/// All that happens to orders, for the view of this id.
pub(crate) fn orders(view_id: &str) -> Source<View> {
    source(ORDER_SERVICE, &ORDER_EVENTS, view_id)
}

/// All that happens to customers and their credit, for the view of this id.
pub(crate) fn customers(view_id: &str) -> Source<View> {
    source("customer", &CUSTOMER_EVENTS, view_id)
}

fn source(name: &'static str, types: &[&str], view_id: &str) -> Source<View> {
    Source {
        name,
        group: format!("query/{view_id}"),
        lifetime: GroupLifetime::Ephemeral,
        types: types.iter().map(ToString::to_string).collect(),
        decode: input,
    }
}

/// What an event of either service means to the view.
fn input(event: &Event) -> Result<Input, MalformedEvent> {
    match event.r#type.as_str() {
        ORDER_CREATED => {
            let created: OrderCreated = decode_event(event)?;
            let change = OrderChange::Created(domain::OrderCreated {
                total: amount("total", created.total.as_ref())?,
                create_time_ms: time_ms("create_time", created.create_time.as_ref())?,
            });
            order_input(event, &created.order_id, &created.customer_id, change)
        }
        ORDER_APPROVED => {
            let approved: OrderApproved = decode_event(event)?;
            order_input(event, &approved.order_id, &approved.customer_id, OrderChange::Approved)
        }
        ORDER_REJECTED => {
            let rejected: OrderRejected = decode_event(event)?;
            let change = OrderChange::Rejected(rejection(rejected.reason)?);
            order_input(event, &rejected.order_id, &rejected.customer_id, change)
        }
        ORDER_CANCELLED => {
            let cancelled: OrderCancelled = decode_event(event)?;
            order_input(event, &cancelled.order_id, &cancelled.customer_id, OrderChange::Cancelled)
        }
        CUSTOMER_CREATED => {
            let created: CustomerCreated = decode_event(event)?;
            let create_time_ms = time_ms("create_time", created.create_time.as_ref())?;
            let limit = amount("credit_limit", created.credit_limit.as_ref())?;
            let change = CustomerChange::Created(domain::CustomerCreated { name: created.name, create_time_ms }, limit);
            customer_input(event, &created.customer_id, change)
        }
        CREDIT_LIMIT_UPDATED => {
            let updated: CreditLimitUpdated = decode_event(event)?;
            let limit = amount("credit_limit", updated.credit_limit.as_ref())?;
            let available = amount("available_credit", updated.available_credit.as_ref())?;
            customer_input(event, &updated.customer_id, CustomerChange::LimitUpdated { limit, available })
        }
        CREDIT_RESERVED => {
            let reserved: CreditReserved = decode_event(event)?;
            let available = amount("available_credit", reserved.available_credit.as_ref())?;
            customer_input(event, &reserved.customer_id, CustomerChange::AvailableChanged { available })
        }
        CREDIT_RELEASED => {
            let released: CreditReleased = decode_event(event)?;
            let available = amount("available_credit", released.available_credit.as_ref())?;
            customer_input(event, &released.customer_id, CustomerChange::AvailableChanged { available })
        }
        other => Err(MalformedEvent::new(format!("type {other} was not asked for"))),
    }
}

fn order_input(event: &Event, order_id: &str, customer_id: &str, change: OrderChange) -> Result<Input, MalformedEvent> {
    Ok(Input::Order(OrderEvent {
        order_id: event_id(order_id)?,
        customer_id: event_id(customer_id)?,
        time_ms: time_ms("create_time", event.create_time.as_ref())?,
        partition: event.partition,
        position: event.position,
        change,
    }))
}

fn customer_input(event: &Event, customer_id: &str, change: CustomerChange) -> Result<Input, MalformedEvent> {
    let customer_id = event_id(customer_id)?;
    Ok(Input::Customer(CustomerEvent { customer_id, position: event.position, change }))
}

fn amount(field: &str, money: Option<&Money>) -> Result<Amount, MalformedEvent> {
    let money = money.ok_or_else(|| missing(field))?;
    Amount::try_from(money).map_err(|error| MalformedEvent::new(format!("{field}.{} {error}", error.field())))
}

fn rejection(reason: i32) -> Result<RejectionReason, MalformedEvent> {
    RejectionReason::try_from(reason).map_err(|_| MalformedEvent::new("reason is unknown"))
}

fn time_ms(field: &str, time: Option<&Timestamp>) -> Result<i64, MalformedEvent> {
    let time = time.ok_or_else(|| missing(field))?;
    let ms = time.seconds.checked_mul(1000).and_then(|ms| ms.checked_add(i64::from(time.nanos) / 1_000_000));
    ms.ok_or_else(|| MalformedEvent::new(format!("{field} is out of range")))
}

fn missing(field: &str) -> MalformedEvent {
    MalformedEvent::new(format!("{field} is missing"))
}

#[cfg(test)]
mod tests;
