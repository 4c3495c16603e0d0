//! What is known after a run: what the mesh has acknowledged, and what each of its parts remembers. Only facts; what is
//! wrong with them is for [`check`](super::check).

use std::collections::BTreeSet;

use meshwork_cli::audit::Promise;
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};

/// All that a check looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// What was acknowledged to the load.
    pub(super) promises: Vec<Promise>,
    /// The orders that the order service has: each that was acknowledged or is in its log.
    pub(super) orders: Vec<Order>,
    /// The customers that the customer service has.
    pub(super) customers: Vec<Customer>,
    /// What has happened, as the services tell it from their beginning.
    pub(super) logs: Vec<Log>,
    /// What each instance of query shows.
    pub(super) views: Vec<View>,
    /// What each instance of query answers to the position tokens of orders that a restore has lost.
    pub(super) lost_tokens: Vec<LostToken>,
    /// How the subscriptions of each instance stand.
    pub(super) subscriptions: Vec<Subscription>,
    /// What each registry lists.
    pub(super) listings: Vec<Listing>,
}

/// A view's answer to the token of an order that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LostToken {
    /// The view's instance.
    pub(super) view: String,
    pub(super) order_id: String,
    /// `POSITION_LOST`, or what was answered instead.
    pub(super) answer: String,
}

/// A subscription of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) instance: String,
    pub(super) source: String,
    /// Why it does not move; empty: it does.
    pub(super) problem: String,
}

/// The instances of all services as one registry lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) registry: String,
    /// Their addresses.
    pub(super) listed: BTreeSet<String>,
    /// Those of the processes that run.
    pub(super) running: BTreeSet<String>,
}

/// An order as one side remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) order_id: String,
    pub(super) customer_id: String,
    pub(super) currency: String,
    pub(super) cents: i64,
    pub(super) state: OrderState,
    pub(super) reason: RejectionReason,
}

/// A customer as one side remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Customer {
    pub(super) customer_id: String,
    pub(super) name: String,
    pub(super) currency: String,
    pub(super) limit: i64,
    pub(super) available: i64,
}

/// One instance's view.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The instance.
    pub(super) name: String,
    pub(super) orders: Vec<Order>,
    pub(super) customers: Vec<Customer>,
}

/// The log of one service, batch by batch, as it was streamed from position 0.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The service.
    pub(super) source: &'static str,
    pub(super) batches: Vec<Batch>,
    /// The head of each partition, as the stream told it.
    pub(super) heads: Vec<(u32, u64)>,
}

/// Some events of one partition, which cover (after, through].
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) partition: u32,
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) events: Vec<Event>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) event_id: String,
    pub(super) position: u64,
    /// What it happened to: its kind and its id.
    pub(super) aggregate: (String, String),
    pub(super) version: u64,
    pub(super) fact: Fact,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    OrderCreated { order_id: String },
    OrderEnded { order_id: String, state: OrderState },
    CustomerCreated { customer_id: String, limit: i64 },
    Reserved { customer_id: String, order_id: String, cents: i64 },
    Refused { order_id: String },
    Released { customer_id: String, order_id: String, cents: i64 },
}
