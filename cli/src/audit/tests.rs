//! The checker finds nothing in an honest mesh, and each lie in one that is not.

use super::*;

fn promise(order_id: &str, cents: i64) -> Promise {
    Promise { order_id: order_id.into(), customer_id: "ada".into(), cents, cancelled: order_id == "cancelled" }
}

fn remembered(order_id: &str, cents: i64, state: OrderState) -> Remembered {
    Remembered { order_id: order_id.into(), cents, state }
}

fn promises() -> Vec<Promise> {
    vec![promise("approved", 1000), promise("rejected", 9000), promise("cancelled", 300)]
}

/// A customer with a limit of 15.00, of which the approved order takes 10.00.
fn honest() -> CreditLine {
    CreditLine {
        customer_id: "ada".into(),
        limit: 1500,
        available: 500,
        orders: vec![
            remembered("approved", 1000, OrderState::Approved),
            remembered("rejected", 9000, OrderState::Rejected),
            remembered("cancelled", 300, OrderState::Cancelled),
        ],
    }
}

fn found(change: impl FnOnce(&mut CreditLine)) -> Vec<Violation> {
    let mut line = honest();
    change(&mut line);
    audit(&promises(), &[line])
}

#[test]
fn an_honest_mesh_has_broken_nothing() {
    assert_eq!(found(|_| {}), []);
    assert_eq!(audit(&[], &[]), []);
}

#[test]
fn a_lost_order_is_found() {
    assert_eq!(found(|line| drop(line.orders.remove(1))), [Violation::Lost("rejected".into())]);
    assert_eq!(audit(&promises()[..1], &[]), [Violation::Lost("approved".into())], "with its customer");
}

#[test]
fn a_doubled_order_is_found() {
    let twice = found(|line| line.orders.push(remembered("rejected", 9000, OrderState::Rejected)));
    assert_eq!(twice, [Violation::Doubled("rejected".into())]);
    let nobodys = found(|line| line.orders.push(remembered("other", 1, OrderState::Rejected)));
    assert_eq!(nobodys, [Violation::Doubled("other".into())]);
}

#[test]
fn an_order_of_another_customer_is_found() {
    let mut other = honest();
    other.customer_id = "bob".into();
    let violations = audit(&promises(), &[other]);
    assert!(violations.contains(&Violation::Lost("approved".into())), "{violations:?}");
    assert!(violations.contains(&Violation::Doubled("approved".into())), "{violations:?}");
}

#[test]
fn a_changed_order_is_found() {
    let violations = found(|line| line.orders[1].cents = 9001);
    assert_eq!(violations, [Violation::Changed { order_id: "rejected".into(), promised: 9000, remembered: 9001 }]);
}

#[test]
fn an_order_without_an_end_is_found() {
    for state in [OrderState::Pending, OrderState::Unspecified] {
        let violations = found(|line| line.orders[1].state = state);
        assert_eq!(violations, [Violation::NotTerminal { order_id: "rejected".into(), state }]);
    }
}

#[test]
fn a_forgotten_cancellation_is_found() {
    let violations = found(|line| {
        line.orders[2].state = OrderState::Approved;
        line.available = 200;
    });
    let state = OrderState::Approved;
    assert_eq!(violations, [Violation::NotCancelled { order_id: "cancelled".into(), state }]);
}

#[test]
fn lost_credit_and_credit_from_nowhere_are_found() {
    for available in [499, 501, 200, 1500, -1] {
        let violations = found(|line| line.available = available);
        assert_eq!(violations, [Violation::Credit { customer_id: "ada".into(), available, expected: 500 }]);
    }
}

#[test]
fn approvals_over_the_limit_are_found() {
    let violations = found(|line| {
        line.orders[1].state = OrderState::Approved;
        line.available = -8500;
    });
    assert_eq!(violations, [Violation::OverLimit { customer_id: "ada".into(), limit: 1500, approved: 10_000 }]);
}

#[test]
fn a_violation_says_what_is_wrong_in_money() {
    let violation = Violation::Credit { customer_id: "ada".into(), available: -5, expected: 123_456 };
    assert_eq!(
        violation.to_string(),
        "customer ada has -0.05 of available credit; expected 1234.56: the limit minus the approved orders"
    );
}
