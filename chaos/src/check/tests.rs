//! The checker finds nothing in an honest mesh, and each planted fault in one that is not.

use std::collections::BTreeSet;

use meshwork_cli::audit::Promise;
use meshwork_shop::contract::shop::order::v1::{OrderState, RejectionReason};

use super::*;
use crate::evidence::{Batch, Customer, Event, Fact, Listing, Log, LostToken, Order, Subscription, View};

fn order(order_id: &str, cents: i64, state: OrderState) -> Order {
    let reason = match state {
        OrderState::Rejected => RejectionReason::InsufficientCredit,
        _ => RejectionReason::Unspecified,
    };
    Order { order_id: order_id.into(), customer_id: "ada".into(), currency: "USD".into(), cents, state, reason }
}

fn event(position: u64, (kind, id): (&str, &str), version: u64, fact: Fact) -> Event {
    Event { event_id: format!("{kind}-{position}"), position, aggregate: (kind.into(), id.into()), version, fact }
}

fn log(source: &'static str, events: &[Event]) -> Log {
    let head = events.len() as u64;
    let (first, rest) = events.split_at(2);
    let batch = |events: &[Event], after| Batch {
        partition: 3,
        after,
        through: after + events.len() as u64,
        events: events.to_vec(),
    };
    Log { source, batches: vec![batch(first, 0), batch(rest, 2)], heads: vec![(3, head), (4, 0)] }
}

/// Ada may spend 15.00: 10.00 are approved, 90.00 refused, 3.00 reserved and released.
fn honest() -> Evidence {
    let created = |order_id: &str| Fact::OrderCreated { order_id: order_id.into() };
    let ended = |order_id: &str, state| Fact::OrderEnded { order_id: order_id.into(), state };
    let orders = log(
        "order",
        &[
            event(1, ("order", "approved"), 1, created("approved")),
            event(2, ("order", "refused"), 1, created("refused")),
            event(3, ("order", "cancelled"), 1, created("cancelled")),
            event(4, ("order", "approved"), 2, ended("approved", OrderState::Approved)),
            event(5, ("order", "refused"), 2, ended("refused", OrderState::Rejected)),
            event(6, ("order", "cancelled"), 2, ended("cancelled", OrderState::Cancelled)),
        ],
    );
    let (ada, cancelled) = ("ada".to_owned(), "cancelled".to_owned());
    let reserved =
        |order_id: &str, cents| Fact::Reserved { customer_id: ada.clone(), order_id: order_id.into(), cents };
    let created = Fact::CustomerCreated { customer_id: ada.clone(), limit: 1500 };
    let released = Fact::Released { customer_id: ada.clone(), order_id: cancelled, cents: 300 };
    let customers = log(
        "customer",
        &[
            event(1, ("customer", "ada"), 1, created),
            event(2, ("reservation", "approved"), 1, reserved("approved", 1000)),
            event(3, ("reservation", "refused"), 1, Fact::Refused { order_id: "refused".into() }),
            event(4, ("reservation", "cancelled"), 1, reserved("cancelled", 300)),
            event(5, ("reservation", "cancelled"), 2, released),
        ],
    );
    let remembered = vec![
        order("approved", 1000, OrderState::Approved),
        order("refused", 9000, OrderState::Rejected),
        order("cancelled", 300, OrderState::Cancelled),
    ];
    let promise = |order: &Order| Promise {
        order_id: order.order_id.clone(),
        customer_id: ada.clone(),
        cents: order.cents,
        cancelled: order.state == OrderState::Cancelled,
    };
    let customer =
        Customer { customer_id: ada.clone(), name: "Ada".into(), currency: "USD".into(), limit: 1500, available: 500 };
    Evidence {
        promises: remembered.iter().map(promise).collect(),
        orders: remembered.clone(),
        customers: vec![customer.clone()],
        logs: vec![orders, customers],
        views: vec![View { name: "query-1".into(), orders: remembered, customers: vec![customer] }],
        ..Evidence::default()
    }
}

/// The kinds of what is found after a change, each once.
fn found(change: impl FnOnce(&mut Evidence)) -> Vec<Kind> {
    let mut evidence = honest();
    change(&mut evidence);
    let mut kinds: Vec<_> = check(&evidence).into_iter().map(|finding| finding.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn events(evidence: &mut Evidence, log: usize) -> &mut Vec<Event> {
    &mut evidence.logs[log].batches[1].events
}

#[test]
fn an_honest_mesh_has_broken_nothing() {
    assert_eq!(check(&honest()), []);
    assert_eq!(check(&Evidence::default()), []);
}

#[test]
fn a_delivery_that_had_its_effect_twice_is_found() {
    let doubled = |evidence: &mut Evidence| {
        let again = Event { position: 6, event_id: "again".into(), ..evidence.logs[1].batches[0].events[1].clone() };
        events(evidence, 1).push(again);
        evidence.logs[1].batches[1].through = 6;
    };
    assert!(found(doubled).contains(&Kind::Doubled), "though the customer service remembers it once");
    let with_its_credit = |evidence: &mut Evidence| {
        doubled(evidence);
        evidence.customers[0].available = -500;
        evidence.views[0].customers[0].available = -500;
    };
    assert_eq!(found(with_its_credit), [Kind::Doubled, Kind::OverLimit, Kind::Credit]);
}

#[test]
fn a_lost_event_is_found_by_the_gap_and_by_what_it_does_not_tell() {
    assert_eq!(found(|evidence| drop(events(evidence, 0).remove(1))), [Kind::Lost], "a gap");
    let closed_up = |evidence: &mut Evidence| {
        events(evidence, 0).pop();
        evidence.logs[0].batches[1].through = 5;
        evidence.logs[0].heads[0].1 = 5;
    };
    assert_eq!(found(closed_up), [Kind::Lost], "no gap, but an order that is not what its events say");
    assert_eq!(found(|evidence| drop(evidence.logs[0].batches.pop())), [Kind::Lost], "the end is missing");
}

#[test]
fn an_event_that_is_streamed_twice_is_found() {
    let repeated = |evidence: &mut Evidence| {
        let again = events(evidence, 0)[0].clone();
        events(evidence, 0).insert(1, again);
    };
    assert!(found(repeated).contains(&Kind::Doubled));
    let batch = |evidence: &mut Evidence| {
        let again = evidence.logs[0].batches[0].clone();
        evidence.logs[0].batches.insert(1, again);
    };
    assert!(found(batch).contains(&Kind::Doubled));
}

#[test]
fn an_over_reservation_is_found_even_if_it_was_released_again() {
    let for_a_moment = |evidence: &mut Evidence| {
        for event in events(evidence, 1) {
            if let Fact::Reserved { cents, .. } | Fact::Released { cents, .. } = &mut event.fact {
                *cents = 600;
            }
        }
    };
    assert_eq!(found(for_a_moment), [Kind::OverLimit]);
}

#[test]
fn a_missing_order_is_found() {
    let lost = |evidence: &mut Evidence| {
        evidence.orders.remove(1);
        evidence.views[0].orders.remove(1);
    };
    assert_eq!(found(lost), [Kind::Lost]);
}

#[test]
fn an_order_that_was_never_placed_is_found() {
    assert!(found(|evidence| drop(evidence.promises.remove(1))).contains(&Kind::Doubled));
}

#[test]
fn a_stuck_order_is_found() {
    let stuck = |evidence: &mut Evidence| {
        evidence.orders[1].state = OrderState::Pending;
        evidence.views[0].orders[1].state = OrderState::Pending;
    };
    assert!(found(stuck).contains(&Kind::Stuck));
}

#[test]
fn credit_that_stays_reserved_for_an_order_that_was_cancelled_is_found() {
    let kept = |evidence: &mut Evidence| {
        events(evidence, 1).pop();
        evidence.logs[1].batches[1].through = 4;
        evidence.logs[1].heads[0].1 = 4;
        evidence.customers[0].available = 200;
        evidence.views[0].customers[0].available = 200;
    };
    assert_eq!(found(kept), [Kind::Credit]);
}

#[test]
fn a_view_that_differs_is_found() {
    let changes: [fn(&mut View); 6] = [
        |view| view.orders[0].state = OrderState::Pending,
        |view| view.orders[1].reason = RejectionReason::TimedOut,
        |view| drop(view.orders.pop()),
        |view| view.orders.push(view.orders[0].clone()),
        |view| view.customers[0].available = 501,
        |view| view.customers.clear(),
    ];
    for change in changes {
        assert_eq!(found(|evidence| change(&mut evidence.views[0])), [Kind::View]);
    }
}

#[test]
fn a_lost_order_that_is_denied_a_subscription_that_stands_and_a_registry_that_knows_not_all_are_found() {
    let token = |answer: &str| LostToken { view: "query-1".into(), order_id: "lost".into(), answer: answer.into() };
    let well = |evidence: &mut Evidence| {
        evidence.lost_tokens.push(token("POSITION_LOST"));
        let (instance, source) = ("query-1".to_owned(), "order".to_owned());
        evidence.subscriptions.push(Subscription { instance, source, problem: String::new() });
        let both = BTreeSet::from(["a:1".to_owned(), "b:1".to_owned()]);
        evidence.listings.push(Listing { registry: "registry-1".into(), listed: both.clone(), running: both });
    };
    assert_eq!(found(well), []);
    let changes: [(fn(&mut Evidence), Kind); 4] = [
        (|evidence| evidence.lost_tokens[0].answer = "NOT_FOUND".into(), Kind::View),
        (|evidence| evidence.subscriptions[0].problem = "stopped".into(), Kind::Frozen),
        (|evidence| drop(evidence.listings[0].listed.pop_first()), Kind::Listing),
        (|evidence| drop(evidence.listings[0].running.pop_first()), Kind::Listing),
    ];
    for (change, kind) in changes {
        let after = |evidence: &mut Evidence| {
            well(evidence);
            change(evidence);
        };
        assert_eq!(found(after), [kind]);
    }
}
