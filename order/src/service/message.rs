//! An order as the contract's message.

use meshwork_events::outbox::LogPoint;
use meshwork_shop::{
    contract::shop::order::v1::{Order as OrderMessage, OrderState, RejectionReason},
    timestamp,
};

use crate::{
    SERVICE, Store,
    domain::{Order, State},
};

/// The message of an order that a reader up to `point` has seen.
pub(super) fn message(store: &Store, order: &Order, point: LogPoint) -> OrderMessage {
    let (state, reason) = match order.state {
        State::Pending => (OrderState::Pending, RejectionReason::Unspecified),
        State::Approved => (OrderState::Approved, RejectionReason::Unspecified),
        State::Rejected(reason) => (OrderState::Rejected, reason),
        State::Cancelled => (OrderState::Cancelled, RejectionReason::Unspecified),
    };
    OrderMessage {
        order_id: order.id.to_string(),
        customer_id: order.customer_id.to_string(),
        total: Some(order.total.into()),
        state: state.into(),
        rejection_reason: reason.into(),
        position_token: store.outbox().token(SERVICE, point),
        create_time: Some(timestamp(order.create_time_ms)),
        update_time: Some(timestamp(order.update_time_ms)),
        deadline_time: Some(timestamp(order.deadline_ms)),
        etag: order.etag(),
    }
}
