//! Every view against the write side.

use std::{collections::BTreeMap, fmt::Debug};

use super::finding::{Finding, Kind};
use crate::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for view in &evidence.views {
        let orders = differences(&evidence.orders, &view.orders, |order| &order.order_id);
        let customers = differences(&evidence.customers, &view.customers, |customer| &customer.customer_id);
        let finding = |difference| Finding::new(Kind::View, format!("{}: {difference}", view.name));
        findings.extend(orders.into_iter().chain(customers).map(finding));
    }
    findings
}

fn differences<T: Debug + PartialEq>(written: &[T], viewed: &[T], id: impl Fn(&T) -> &str) -> Vec<String> {
    let mut unseen: BTreeMap<&str, &T> = written.iter().map(|item| (id(item), item)).collect();
    let mut differences = Vec::new();
    for item in viewed {
        match unseen.remove(id(item)) {
            Some(same) if same == item => {}
            Some(other) => differences.push(format!("shows {item:?} instead of {other:?}")),
            None => differences.push(format!("shows {item:?}, which is not there or was shown before")),
        }
    }
    differences.extend(unseen.into_values().map(|item| format!("does not show {item:?}")));
    differences
}
