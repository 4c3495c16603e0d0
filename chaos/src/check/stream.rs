//! A log as it was streamed: each batch begins where the one before ended, and covers its positions whole.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::finding::{Finding, Kind};
use crate::evidence::{Event, Log};

pub(super) fn check(log: &Log) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut through: BTreeMap<u32, u64> = BTreeMap::new();
    let mut seen = Seen::default();
    for batch in &log.batches {
        let (partition, source) = (batch.partition, log.source);
        let at = through.entry(partition).or_default();
        let mut step = |position: u64, expected: u64, what: &str| {
            let kind = if position > expected { Kind::Lost } else { Kind::Doubled };
            if position != expected {
                let what = format!("{source}'s partition {partition} {what} {position}, and {expected} was expected");
                findings.push(Finding::new(kind, what));
            }
        };
        step(batch.after, *at, "goes on after");
        let mut last = batch.after;
        for event in &batch.events {
            step(event.position, last + 1, "has event");
            last = event.position;
        }
        step(batch.through, last, "has a batch through");
        *at = batch.through;
        findings.extend(batch.events.iter().flat_map(|event| seen.again(source, event)));
    }
    for (partition, head) in &log.heads {
        let through = through.get(partition).copied().unwrap_or_default();
        if through < *head {
            let what = format!("{}'s partition {partition} has a head of {head}, and ends at {through}", log.source);
            findings.push(Finding::new(Kind::Lost, what));
        }
    }
    findings
}

#[derive(Default)]
struct Seen<'a> {
    events: HashSet<&'a str>,
    versions: HashMap<&'a (String, String), u64>,
}

impl<'a> Seen<'a> {
    /// What is wrong with an event, given those before it.
    fn again(&mut self, source: &str, event: &'a Event) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.events.insert(&event.event_id) {
            findings.push(Finding::new(Kind::Doubled, format!("{source}'s event {} is there twice", event.event_id)));
        }
        let version = self.versions.entry(&event.aggregate).or_default();
        let kind = match event.version {
            next if next == *version + 1 => None,
            repeated if repeated <= *version => Some(Kind::Doubled),
            // A customer's own version also counts what its orders did, whose events are their reservations'.
            _ if event.aggregate.0 == "customer" => None,
            _ => Some(Kind::Lost),
        };
        if let Some(kind) = kind {
            let ((name, id), now) = (&event.aggregate, event.version);
            findings.push(Finding::new(kind, format!("{source}'s {name} {id} has version {now} after {version}")));
        }
        *version = event.version;
        findings
    }
}
