//! How the story went: a table for people, or one line of JSON.

use std::io::{self, Write as _};

use meshwork_shop::contract::shop::order::v1::OrderState;
use serde::Serialize;

use super::story::Played;
use crate::{
    audit::{CreditLine, audit},
    fleet,
    table::{Align, Table},
};

/// More broken promises than this are counted, not listed: the first ones tell what is wrong.
const LISTED: usize = 20;

/// How the story went.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    customers: usize,
    orders: usize,
    approved: usize,
    rejected: usize,
    cancelled: usize,
    orders_per_second: u64,
    p50_ms: f64,
    p99_ms: f64,
    /// The address of the instance of order that was killed during the run; null: none was.
    killed: Option<String>,
    /// The broken promises.
    violations: Vec<String>,
}

impl Report {
    /// Checks what the mesh remembers against what it has promised.
    pub(super) fn new(outcome: &Played, credit_lines: &[CreditLine], killed: Option<fleet::Instance>) -> Self {
        let count =
            |state| credit_lines.iter().flat_map(|line| &line.orders).filter(|order| order.state == state).count();
        let milliseconds = |quantile| outcome.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        let orders = outcome.promises.len();
        Self {
            customers: outcome.customers.len(),
            orders,
            approved: count(OrderState::Approved),
            rejected: count(OrderState::Rejected),
            cancelled: count(OrderState::Cancelled),
            orders_per_second: (orders as f64 / outcome.elapsed.as_secs_f64()) as u64,
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
            killed: killed.map(|instance| instance.address.to_string()),
            violations: audit(&outcome.promises, credit_lines).iter().map(ToString::to_string).collect(),
        }
    }

    /// How many promises were broken.
    pub(super) fn broken(&self) -> usize {
        self.violations.len()
    }

    /// Prints it to stdout.
    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let text = if json { format!("{}\n", serde_json::to_string(self)?) } else { self.text() };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn text(&self) -> String {
        let titles = ["CUSTOMERS", "ORDERS", "APPROVED", "REJECTED", "CANCELLED", "ORDERS/S", "P50", "P99"];
        let mut table = Table::new(titles.map(|title| (title, Align::Right)));
        table.row([
            self.customers.to_string(),
            self.orders.to_string(),
            self.approved.to_string(),
            self.rejected.to_string(),
            self.cancelled.to_string(),
            self.orders_per_second.to_string(),
            format!("{:.1} ms", self.p50_ms),
            format!("{:.1} ms", self.p99_ms),
        ]);
        let mut text = format!("{table}\n");
        if let Some(address) = &self.killed {
            text += &format!("killed during the run: an instance of order, {address}\n");
        }
        for violation in self.violations.iter().take(LISTED) {
            text += &format!("FAILED: {violation}\n");
        }
        if self.violations.len() > LISTED {
            text += &format!("and {} more\n", self.violations.len() - LISTED);
        }
        if self.violations.is_empty() {
            text += "no credit was lost: every acknowledged order exists exactly once and is in a final state;\n\
                     each customer's available credit is the limit minus the approved orders\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(violations: usize) -> Report {
        Report {
            customers: 1000,
            orders: 1_000_000,
            approved: 1_000_000,
            rejected: 1_000_000,
            cancelled: 1_000_000,
            orders_per_second: 1_000_000,
            p50_ms: 60_000.0,
            p99_ms: 60_000.0,
            killed: Some("127.0.0.1:65535".into()),
            violations: vec!["order x was lost".into(); violations],
        }
    }

    #[test]
    fn the_longest_report_fits_100_columns() {
        for line in report(0).text().lines() {
            assert!(line.chars().count() <= crate::table::MAX_WIDTH, "{line}");
        }
    }

    #[test]
    fn broken_promises_are_listed_and_a_kept_word_is_said_only_if_it_was_kept() {
        let text = report(25).text();
        assert_eq!(text.matches("FAILED: order x was lost").count(), 20);
        assert!(text.contains("and 5 more") && !text.contains("no credit was lost"), "{text}");
        assert!(report(0).text().contains("no credit was lost"));
    }
}
