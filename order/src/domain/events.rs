//! What happens to orders, as events. All are keyed by the customer, so that a credit line's events are in one order.

use meshwork_events::outbox::NewEvent;
use meshwork_shop::{
    contract::shop::order::v1::{OrderApproved, OrderCancelled, OrderCreated, OrderRejected},
    timestamp,
};

use super::{Order, State};

/// The kind of thing that all events here happen to.
const ORDER: &str = "order";

/// The event of the order's present state.
pub(super) fn event(order: &Order) -> NewEvent {
    let (order_id, customer_id) = (order.id.to_string(), order.customer_id.to_string());
    match order.state {
        State::Pending => of_order(
            order,
            &OrderCreated {
                order_id,
                customer_id,
                total: Some(order.total.into()),
                create_time: Some(timestamp(order.create_time_ms)),
            },
        ),
        State::Approved => of_order(order, &OrderApproved { order_id, customer_id }),
        State::Rejected(reason) => of_order(order, &OrderRejected { order_id, customer_id, reason: reason.into() }),
        State::Cancelled => of_order(order, &OrderCancelled { order_id, customer_id }),
    }
}

fn of_order<M: prost::Message + prost::Name>(order: &Order, payload: &M) -> NewEvent {
    NewEvent::new(order.customer_id, (ORDER, order.id), order.version, order.update_time_ms, payload)
}
