//! The events of credit lines. All are keyed by the customer, so that a credit line's events are in one order.

use meshwork_events::outbox::NewEvent;
use meshwork_shop::{
    Amount,
    contract::shop::customer::v1::{
        CreditLimitUpdated, CreditRefused, CreditReleased, CreditReserved, CustomerCreated, RefusalReason,
    },
    timestamp,
};
use uuid::Uuid;

use super::Customer;

/// The aggregate of what happens to a customer itself; its version is the customer's.
const CUSTOMER: &str = "customer";
/// The aggregate of what an order does to a credit line: version 1 reserved or refused, 2 released.
const RESERVATION: &str = "reservation";

pub(super) fn customer_created(customer: &Customer) -> NewEvent {
    of_customer(
        customer,
        &CustomerCreated {
            customer_id: customer.id.to_string(),
            name: customer.name.clone(),
            credit_limit: Some(customer.limit.into()),
            create_time: Some(timestamp(customer.create_time_ms)),
        },
    )
}

pub(super) fn credit_limit_updated(customer: &Customer) -> NewEvent {
    of_customer(
        customer,
        &CreditLimitUpdated {
            customer_id: customer.id.to_string(),
            credit_limit: Some(customer.limit.into()),
            available_credit: Some(customer.available().into()),
        },
    )
}

pub(super) fn credit_reserved(customer: &Customer, order_id: Uuid, amount: Amount, now_ms: i64) -> NewEvent {
    let event = CreditReserved {
        customer_id: customer.id.to_string(),
        order_id: order_id.to_string(),
        amount: Some(amount.into()),
        available_credit: Some(customer.available().into()),
    };
    NewEvent::new(customer.id, (RESERVATION, order_id), 1, now_ms, &event)
}

pub(super) fn credit_refused(customer_id: Uuid, order_id: Uuid, reason: RefusalReason, now_ms: i64) -> NewEvent {
    let event =
        CreditRefused { customer_id: customer_id.to_string(), order_id: order_id.to_string(), reason: reason.into() };
    NewEvent::new(customer_id, (RESERVATION, order_id), 1, now_ms, &event)
}

pub(super) fn credit_released(customer: &Customer, order_id: Uuid, amount: Amount, now_ms: i64) -> NewEvent {
    let event = CreditReleased {
        customer_id: customer.id.to_string(),
        order_id: order_id.to_string(),
        amount: Some(amount.into()),
        available_credit: Some(customer.available().into()),
    };
    NewEvent::new(customer.id, (RESERVATION, order_id), 2, now_ms, &event)
}

fn of_customer<M: prost::Message + prost::Name>(customer: &Customer, payload: &M) -> NewEvent {
    NewEvent::new(customer.id, (CUSTOMER, customer.id), customer.version, customer.update_time_ms, payload)
}
