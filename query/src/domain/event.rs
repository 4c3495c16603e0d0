//! The stream's events as the view's inputs.
//!
//! Events that were written before a field existed still decode; one that makes no sense is an error, which stops its
//! partition: guessing would make the view wrong for good.

use meshwork::contract::{
    meshwork::event::v1::Event,
    shop::{
        customer::v1 as customer,
        order::v1::{self as order, RejectionReason},
        r#type::v1::Money,
    },
};
use meshwork_shop::{Amount, MoneyError, parse_id};
use prost_types::Timestamp;
use uuid::Uuid;

use super::{CustomerChange, CustomerCreated, CustomerEvent, Input, OrderChange, OrderCreated, OrderEvent};

const ORDER_CREATED: &str = "shop.order.v1.OrderCreated";
const ORDER_APPROVED: &str = "shop.order.v1.OrderApproved";
const ORDER_REJECTED: &str = "shop.order.v1.OrderRejected";
const ORDER_CANCELLED: &str = "shop.order.v1.OrderCancelled";
const CUSTOMER_CREATED: &str = "shop.customer.v1.CustomerCreated";
const CREDIT_LIMIT_UPDATED: &str = "shop.customer.v1.CreditLimitUpdated";
const CREDIT_RESERVED: &str = "shop.customer.v1.CreditReserved";
const CREDIT_RELEASED: &str = "shop.customer.v1.CreditReleased";

/// What the view asks of the order service.
pub const ORDER_EVENTS: [&str; 4] = [ORDER_CREATED, ORDER_APPROVED, ORDER_REJECTED, ORDER_CANCELLED];

/// What the view asks of the customer service. Not `CreditRefused`: it changes no credit line, and the order's own stream
/// says why the order was rejected.
pub const CUSTOMER_EVENTS: [&str; 4] = [CUSTOMER_CREATED, CREDIT_LIMIT_UPDATED, CREDIT_RESERVED, CREDIT_RELEASED];

/// An event that the view cannot understand. It names the field, not the value, which may be personal.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The view did not ask for it.
    #[error("events of type {0:?} are not folded")]
    UnexpectedType(String),
    /// The payload is not there, or no message of the event's type.
    #[error("the payload is no {event_type}")]
    Payload {
        /// The type that the event says.
        event_type: &'static str,
        /// Why it does not decode. `None`: it is not there.
        #[source]
        source: Option<prost::DecodeError>,
    },
    /// A field that must be there is not, or makes no sense.
    #[error("{field} is missing or invalid")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// An amount makes no sense.
    #[error("{field} is no amount")]
    Money {
        /// Which.
        field: &'static str,
        /// Why.
        #[source]
        source: MoneyError,
    },
}

/// What an event of either service means to the view.
pub fn to_input(event: &Event) -> Result<Input, EventError> {
    if event.position == 0 {
        return Err(EventError::Field { field: "position" });
    }
    match event.r#type.as_str() {
        ORDER_CREATED => {
            let created: order::OrderCreated = payload(event, ORDER_CREATED)?;
            let change = OrderChange::Created(OrderCreated {
                total: amount("total", created.total.as_ref())?,
                create_time_ms: time_ms("create_time", created.create_time.as_ref())?,
            });
            order_input(event, &created.order_id, &created.customer_id, change)
        }
        ORDER_APPROVED => {
            let approved: order::OrderApproved = payload(event, ORDER_APPROVED)?;
            order_input(event, &approved.order_id, &approved.customer_id, OrderChange::Approved)
        }
        ORDER_REJECTED => {
            let rejected: order::OrderRejected = payload(event, ORDER_REJECTED)?;
            let change = OrderChange::Rejected(rejection(rejected.reason)?);
            order_input(event, &rejected.order_id, &rejected.customer_id, change)
        }
        ORDER_CANCELLED => {
            let cancelled: order::OrderCancelled = payload(event, ORDER_CANCELLED)?;
            order_input(event, &cancelled.order_id, &cancelled.customer_id, OrderChange::Cancelled)
        }
        CUSTOMER_CREATED => {
            let created: customer::CustomerCreated = payload(event, CUSTOMER_CREATED)?;
            let create_time_ms = time_ms("create_time", created.create_time.as_ref())?;
            let limit = amount("credit_limit", created.credit_limit.as_ref())?;
            let change = CustomerChange::Created(CustomerCreated { name: created.name, create_time_ms }, limit);
            customer_input(event, &created.customer_id, change)
        }
        CREDIT_LIMIT_UPDATED => {
            let updated: customer::CreditLimitUpdated = payload(event, CREDIT_LIMIT_UPDATED)?;
            let limit = amount("credit_limit", updated.credit_limit.as_ref())?;
            let available = amount("available_credit", updated.available_credit.as_ref())?;
            customer_input(event, &updated.customer_id, CustomerChange::LimitUpdated { limit, available })
        }
        CREDIT_RESERVED => {
            let reserved: customer::CreditReserved = payload(event, CREDIT_RESERVED)?;
            let available = amount("available_credit", reserved.available_credit.as_ref())?;
            customer_input(event, &reserved.customer_id, CustomerChange::AvailableChanged { available })
        }
        CREDIT_RELEASED => {
            let released: customer::CreditReleased = payload(event, CREDIT_RELEASED)?;
            let available = amount("available_credit", released.available_credit.as_ref())?;
            customer_input(event, &released.customer_id, CustomerChange::AvailableChanged { available })
        }
        other => Err(EventError::UnexpectedType(other.to_owned())),
    }
}

fn order_input(event: &Event, order_id: &str, customer_id: &str, change: OrderChange) -> Result<Input, EventError> {
    Ok(Input::Order(OrderEvent {
        order_id: id("order_id", order_id)?,
        customer_id: id("customer_id", customer_id)?,
        time_ms: time_ms("create_time", event.create_time.as_ref())?,
        partition: event.partition,
        position: event.position,
        change,
    }))
}

fn customer_input(event: &Event, customer_id: &str, change: CustomerChange) -> Result<Input, EventError> {
    let customer_id = id("customer_id", customer_id)?;
    Ok(Input::Customer(CustomerEvent { customer_id, position: event.position, change }))
}

fn payload<M: prost::Message + Default>(event: &Event, event_type: &'static str) -> Result<M, EventError> {
    let any = event.payload.as_ref().ok_or(EventError::Payload { event_type, source: None })?;
    M::decode(any.value.as_slice()).map_err(|source| EventError::Payload { event_type, source: Some(source) })
}

fn id(field: &'static str, text: &str) -> Result<Uuid, EventError> {
    parse_id(text).map_err(|_| EventError::Field { field })
}

fn amount(field: &'static str, money: Option<&Money>) -> Result<Amount, EventError> {
    let money = money.ok_or(EventError::Field { field })?;
    Amount::try_from(money).map_err(|source| EventError::Money { field, source })
}

fn rejection(reason: i32) -> Result<RejectionReason, EventError> {
    RejectionReason::try_from(reason).map_err(|_| EventError::Field { field: "reason" })
}

fn time_ms(field: &'static str, time: Option<&Timestamp>) -> Result<i64, EventError> {
    let time = time.ok_or(EventError::Field { field })?;
    let ms = time.seconds.checked_mul(1000).and_then(|ms| ms.checked_add(i64::from(time.nanos) / 1_000_000));
    ms.ok_or(EventError::Field { field })
}
