//! Which promises a mesh has broken. Pure: it sees only the evidence.
//!
//! 1. What the write side remembers is what was acknowledged: the demo's [`audit`].
//! 2. Each log has every position once, each aggregate every version once, and no event twice.
//! 3. The logs tell what the services remember: no event is lost, no credit reserved twice for an order, none beyond the
//!    limit at any time.
//! 4. Every view equals the write side, and says so if it is asked for what a restore has lost.
//! 5. Every subscription moves, and every registry lists the instances that run, and no other.

mod ledger;
mod rest;
mod stream;
mod view;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use meshwork_cli::audit::{CreditLine, Remembered, Violation, audit};

use super::evidence::Evidence;

/// What kind of a promise was broken; each has a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Something acknowledged, or an event, is not there or not what it was.
    Lost,
    /// Something happened twice, or without anybody having asked for it.
    Doubled,
    /// More was reserved or approved than the limit.
    OverLimit,
    /// An order has not come to an end.
    Stuck,
    /// A customer's credit is not what its orders leave of it.
    Credit,
    /// A view does not show what the write side has.
    View,
    /// A subscription does not move.
    Frozen,
    /// A registry does not list what runs, or lists what does not.
    Listing,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Lost,
        Self::Doubled,
        Self::OverLimit,
        Self::Stuck,
        Self::Credit,
        Self::View,
        Self::Frozen,
        Self::Listing,
    ];

    /// The name of its figure.
    pub(super) fn figure(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::OverLimit => "over_limit",
            Self::Stuck => "stuck",
            Self::Credit => "credit_differences",
            Self::View => "view_differences",
            Self::Frozen => "frozen",
            Self::Listing => "listing_differences",
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// What exactly differs, with ids and states.
    pub(super) what: String,
}

impl Finding {
    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.figure(), self.what)
    }
}

/// Which promises were broken; none, if all is well.
pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let broken = audit(&evidence.promises, &credit_lines(evidence)).into_iter().map(Finding::from);
    let streams = evidence.logs.iter().flat_map(stream::check);
    let ledger = ledger::check(evidence).into_iter();
    broken.chain(streams).chain(ledger).chain(view::check(evidence)).chain(rest::check(evidence)).collect()
}

/// Every customer with its orders; one that is not known has no credit.
fn credit_lines(evidence: &Evidence) -> Vec<CreditLine> {
    let mut lines: BTreeMap<&str, CreditLine> = BTreeMap::new();
    let line = |customer_id: &str, limit, available| CreditLine {
        customer_id: customer_id.to_owned(),
        limit,
        available,
        orders: Vec::new(),
    };
    for customer in &evidence.customers {
        lines.insert(&customer.customer_id, line(&customer.customer_id, customer.limit, customer.available));
    }
    for order in &evidence.orders {
        let remembered = Remembered { order_id: order.order_id.clone(), cents: order.cents, state: order.state };
        let unknown = || line(&order.customer_id, 0, 0);
        lines.entry(&order.customer_id).or_insert_with(unknown).orders.push(remembered);
    }
    lines.into_values().collect()
}

impl From<Violation> for Finding {
    fn from(violation: Violation) -> Self {
        let kind = match violation {
            Violation::Lost(_) | Violation::Changed { .. } | Violation::NotCancelled { .. } => Kind::Lost,
            Violation::Doubled(_) => Kind::Doubled,
            Violation::NotTerminal { .. } => Kind::Stuck,
            Violation::OverLimit { .. } => Kind::OverLimit,
            Violation::Credit { .. } => Kind::Credit,
        };
        Self::new(kind, violation.to_string())
    }
}
