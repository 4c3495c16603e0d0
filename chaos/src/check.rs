//! Which promises a mesh has broken. Pure: it sees only the evidence.
//!
//! 1. What the write side remembers is what was acknowledged: the demo's [`audit`].
//! 2. Each log has every position once, each aggregate every version once, and no event twice.
//! 3. The logs tell what the services remember: no event is lost, no credit reserved twice for an order, none beyond the
//!    limit at any time.
//! 4. Every view equals the write side, and says so if it is asked for what a restore has lost.
//! 5. Every subscription moves, and every registry lists the instances that run, and no other.

mod finding;
mod ledger;
mod rest;
mod stream;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use meshwork_cli::audit::{CreditLine, Remembered, audit};

use super::evidence::Evidence;

pub(super) use finding::{Finding, Kind};

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
