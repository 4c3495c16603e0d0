//! Waits until a shop has come to rest after the last fault, and gathers the evidence.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;
use meshwork_harness::{direct, report::Failures, shop_processes::ShopProcesses};
use meshwork_shop::contract::shop::order::v1::OrderState;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    check::{Finding, Kind, check},
    event_log,
    evidence::{Evidence, Fact, Log},
    faults,
    load::Load,
    reads::Reads,
    standing, view_side, write_side,
};

/// How long orders may stay pending: the saga's deadline of 30 s, and the leases of processes that were killed last.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long the last releases and views may take after that.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// Tokens of lost orders that each view is asked for, spread over all of them.
const LOST_TOKENS: usize = 50;
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A shop at rest.
pub(super) struct Settled {
    /// When no order was pending any more, or the wait for that gave up.
    pub(super) at: Instant,
    pub(super) evidence: Evidence,
    /// Orders that were acknowledged, and lost in a restore.
    pub(super) restored_away: usize,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
    /// Reads that failed although no fault was active.
    pub(super) failed_reads: Failures,
}

impl Settled {
    /// What there was, by name.
    pub(super) fn counts(&self) -> [(&'static str, usize); 5] {
        let orders = |state| self.evidence.orders.iter().filter(|order| order.state == state).count();
        let batches = self.evidence.logs.iter().flat_map(|log| &log.batches);
        [
            ("approved", orders(OrderState::Approved)),
            ("rejected", orders(OrderState::Rejected)),
            ("cancelled", orders(OrderState::Cancelled)),
            ("customers", self.evidence.customers.len()),
            ("events", batches.map(|batch| batch.events.len()).sum()),
        ]
    }
}

/// Waits for a shop to come to rest, and looks at all of it. Always returns.
pub(super) async fn settle(shop: &ShopProcesses, load: &Load) -> Settled {
    let reads = Reads::default();
    let mut findings_before = Vec::new();
    // A reader that the operator could not reach has noticed the restore by now.
    if load.was_restored()
        && let Err(error) = faults::reconcile(shop).await
    {
        findings_before.push(Finding { kind: Kind::Frozen, what: format!("at rest: {error}") });
    }
    let pending = wait_for_orders(load, &reads).await;
    let at = Instant::now();
    eprintln!("no order is pending any more, or has been for too long");
    let end = at + REST_LIMIT;
    loop {
        let (evidence, findings) = match pending.clone().and(gather(shop, load, &reads).await) {
            Ok(evidence) => {
                let findings = check(&evidence);
                (evidence, findings)
            }
            Err(status) => {
                let what = format!("the mesh does not answer: {status}");
                (Evidence::default(), vec![Finding { kind: Kind::Lost, what }])
            }
        };
        if findings.is_empty() || Instant::now() >= end {
            let findings = findings_before.into_iter().chain(findings).collect();
            let restored_away = load.acknowledged() - evidence.promises.len();
            return Settled { at, evidence, restored_away, findings, failed_reads: reads.failed() };
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Waits until no acknowledged order is pending, or time is up: then the check will tell.
async fn wait_for_orders(load: &Load, reads: &Reads) -> Result<(), Status> {
    let end = Instant::now() + SETTLE_LIMIT;
    let (kept, doubtful) = load.promises();
    let mut pending: Vec<String> = kept.into_iter().map(|promise| promise.order_id).collect();
    let doubtful = doubtful.into_iter().map(|(promise, _)| promise.order_id).collect();
    let mut there: Vec<String> =
        write_side::orders(load.calls(), reads, doubtful).await?.into_iter().map(|order| order.order_id).collect();
    pending.append(&mut there);
    loop {
        pending = write_side::pending(load.calls(), reads, pending).await?;
        if pending.is_empty() || Instant::now() >= end {
            return Ok(());
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn gather(shop: &ShopProcesses, load: &Load, reads: &Reads) -> Result<Evidence, Status> {
    let (calls, (mut promises, doubtful)) = (load.calls(), load.promises());
    let sources = ["order", "customer"].map(|source| event_log::read(source, shop.mesh().channel(source)));
    let logs = try_join_all(sources).await?;
    let ids = |of: fn(&Fact) -> Option<&String>| told(&logs, of);
    let mut order_ids = ids(|fact| match fact {
        Fact::OrderCreated { order_id } => Some(order_id),
        _ => None,
    });
    order_ids.extend(promises.iter().chain(doubtful.iter().map(|(promise, _)| promise)).map(|p| p.order_id.clone()));
    let mut customer_ids = ids(|fact| match fact {
        Fact::CustomerCreated { customer_id, .. } => Some(customer_id),
        _ => None,
    });
    customer_ids.extend(load.customers());
    let customer_ids: Vec<String> = customer_ids.into_iter().collect();

    let orders = write_side::orders(calls, reads, order_ids.into_iter().collect()).await?;
    let customers = write_side::customers(calls, reads, customer_ids.clone()).await?;
    let there: BTreeSet<&str> = orders.iter().map(|order| order.order_id.as_str()).collect();
    // What a restore has not lost is promised.
    let (still_there, lost): (Vec<_>, Vec<_>) =
        doubtful.into_iter().partition(|(promise, _)| there.contains(promise.order_id.as_str()));
    promises.extend(still_there.into_iter().map(|(promise, _)| promise));
    let step = (lost.len() / LOST_TOKENS).max(1);
    let lost: Vec<(String, String)> =
        lost.into_iter().step_by(step).map(|(promise, token)| (promise.order_id, token)).collect();

    let (mut views, mut lost_tokens) = (Vec::new(), Vec::new());
    for instance in shop.instances("query") {
        let unreachable = |error| Status::unavailable(format!("{} cannot be reached: {error}", instance.name()));
        let client = direct::query(instance, shop.identity()).await.map_err(unreachable)?;
        views.push(view_side::view(&client, reads, instance.name(), &customer_ids).await?);
        lost_tokens.extend(view_side::lost_tokens(&client, instance.name(), &lost).await);
    }
    let (subscriptions, listings) = (standing::subscriptions(shop).await?, standing::listings(shop).await?);
    Ok(Evidence { promises, orders, customers, logs, views, lost_tokens, subscriptions, listings })
}

/// The ids in the logs.
fn told(logs: &[Log], of: fn(&Fact) -> Option<&String>) -> BTreeSet<String> {
    let events = logs.iter().flat_map(|log| &log.batches).flat_map(|batch| &batch.events);
    events.filter_map(|event| of(&event.fact)).cloned().collect()
}
