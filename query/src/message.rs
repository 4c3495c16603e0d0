//! Rows as messages of the contract.

use std::time::Duration;

use meshwork::rpc::Domain;
use meshwork_events::consumer::{Snapshot, SubscriptionState};
use meshwork_shop::{contract::shop::query::v1 as proto, timestamp};
use uuid::Uuid;

use crate::{
    domain::OrderRow,
    store::{Customer, Order},
};

/// The domain of this service's errors.
pub(crate) const DOMAIN: Domain = Domain::new("query.shop");

/// When to try again: a view that is behind is not a matter of milliseconds.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(500);

/// An order of the view.
pub(crate) fn order_message(order_id: Uuid, row: &OrderRow, customer_name: &str) -> proto::Order {
    proto::Order {
        order_id: order_id.to_string(),
        customer_id: row.customer_id.to_string(),
        customer_name: customer_name.to_owned(),
        total: row.created.map(|created| created.total.into()),
        state: row.state.into(),
        rejection_reason: row.reason.into(),
        create_time: row.created.map(|created| timestamp(created.create_time_ms)),
        update_time: Some(timestamp(row.update_time_ms)),
    }
}

impl From<&Order> for proto::Order {
    fn from(order: &Order) -> Self {
        order_message(order.order_id, &order.row, &order.customer_name)
    }
}

impl From<Customer> for proto::Customer {
    fn from(Customer { customer_id, row }: Customer) -> Self {
        let (name, create_time_ms) = row.created.map_or_else(Default::default, |c| (c.name, c.create_time_ms));
        Self {
            customer_id: customer_id.to_string(),
            name,
            credit_limit: row.limit.map(Into::into),
            available_credit: row.available.map(Into::into),
            create_time: Some(timestamp(create_time_ms)),
        }
    }
}

/// How far the events of `source` were folded.
pub(crate) fn projection(source: &str, progress: Snapshot) -> proto::Projection {
    let (state, error) = match progress.state {
        SubscriptionState::Connecting(error) => (proto::ProjectionState::Connecting, error.unwrap_or_default()),
        SubscriptionState::Running => (proto::ProjectionState::Running, String::new()),
        SubscriptionState::Retrying(error) => (proto::ProjectionState::Retrying, error),
        SubscriptionState::Stopped(error) => (proto::ProjectionState::Stopped, error),
    };
    let partitions: Vec<_> = (0..)
        .zip(progress.applied.into_iter().zip(progress.heads))
        // What was folded was there, although its heartbeat may be under way.
        .map(|(partition, (applied, head))| proto::PartitionProgress { partition, applied, head: head.max(applied) })
        .collect();
    let lag = partitions.iter().map(|partition| partition.head - partition.applied).sum();
    proto::Projection { source: source.to_owned(), state: state.into(), error, lag, partitions }
}
