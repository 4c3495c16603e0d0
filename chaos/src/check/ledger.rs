//! What the logs tell, folded, against what the services remember.

use std::collections::{BTreeMap, HashMap};

use meshwork_shop::contract::shop::order::v1::OrderState;

use super::finding::{Finding, Kind};
use crate::evidence::{Evidence, Fact};

/// What all events together say.
#[derive(Default)]
struct Ledger<'a> {
    orders: HashMap<&'a str, OrderState>,
    /// Customer => its limit, and what is reserved of it.
    lines: BTreeMap<&'a str, Line>,
    /// Order => what is reserved for it now.
    reserved: HashMap<&'a str, i64>,
    /// How often an order was answered by the customer service: with a reservation or a refusal.
    answers: HashMap<&'a str, u32>,
    findings: Vec<Finding>,
}

#[derive(Default)]
struct Line {
    limit: i64,
    reserved: i64,
}

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut ledger = Ledger::default();
    for event in evidence.logs.iter().flat_map(|log| &log.batches).flat_map(|batch| &batch.events) {
        ledger.enter(&event.fact);
    }
    ledger.compare(evidence)
}

impl<'a> Ledger<'a> {
    fn enter(&mut self, fact: &'a Fact) {
        match fact {
            Fact::OrderCreated { order_id } => self.order(order_id, OrderState::Pending),
            Fact::OrderEnded { order_id, state } => self.order(order_id, *state),
            Fact::CustomerCreated { customer_id, limit } => self.lines.entry(customer_id).or_default().limit = *limit,
            Fact::Reserved { customer_id, order_id, cents } => {
                self.answer(order_id);
                *self.reserved.entry(order_id).or_default() += cents;
                self.reserve(customer_id, order_id, *cents);
            }
            Fact::Refused { order_id } => self.answer(order_id),
            Fact::Released { customer_id, order_id, cents } => {
                *self.reserved.entry(order_id).or_default() -= cents;
                self.lines.entry(customer_id).or_default().reserved -= cents;
            }
        }
    }

    fn order(&mut self, order_id: &'a str, state: OrderState) {
        if self.orders.insert(order_id, state).is_some() && state == OrderState::Pending {
            self.findings.push(Finding::new(Kind::Doubled, format!("order {order_id} was created twice")));
        }
    }

    fn answer(&mut self, order_id: &'a str) {
        let answers = self.answers.entry(order_id).or_default();
        *answers += 1;
        if *answers > 1 {
            let what = format!("credit for order {order_id} was reserved or refused {answers} times");
            self.findings.push(Finding::new(Kind::Doubled, what));
        }
    }

    fn reserve(&mut self, customer_id: &'a str, order_id: &str, cents: i64) {
        let line = self.lines.entry(customer_id).or_default();
        line.reserved += cents;
        if line.reserved > line.limit {
            let Line { limit, reserved } = line;
            let what =
                format!("customer {customer_id} may spend {limit}, and had {reserved} reserved with order {order_id}");
            self.findings.push(Finding::new(Kind::OverLimit, what));
        }
    }

    fn compare(mut self, evidence: &Evidence) -> Vec<Finding> {
        for order in &evidence.orders {
            let id = order.order_id.as_str();
            let told = self.orders.get(id).copied();
            if told != Some(order.state) {
                let told = told.map_or("not there", |state| state.as_str_name());
                let what = format!("order {id} is {}, and {told} by its events", order.state.as_str_name());
                self.findings.push(Finding::new(Kind::Lost, what));
            }
            // The reservation of an approved order stands, that of any other is gone.
            let due = if order.state == OrderState::Approved { order.cents } else { 0 };
            let reserved = self.reserved.get(id).copied().unwrap_or_default();
            if reserved != due {
                let state = order.state.as_str_name();
                let what = format!("order {id} of {} is {state}, and {reserved} is reserved for it", order.cents);
                self.findings.push(Finding::new(Kind::Credit, what));
            }
        }
        for customer in &evidence.customers {
            let (id, none) = (customer.customer_id.as_str(), Line::default());
            let Line { limit, reserved } = self.lines.get(id).unwrap_or(&none);
            if (*limit, limit - reserved) != (customer.limit, customer.available) {
                let told = format!("{} of {limit} by its events", limit - reserved);
                let what = format!("customer {id} has {} of {} left, and {told}", customer.available, customer.limit);
                self.findings.push(Finding::new(Kind::Lost, what));
            }
        }
        self.findings
    }
}
