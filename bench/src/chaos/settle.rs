//! Waits until a shop that nobody breaks any more has come to rest, and gathers the evidence.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;
use meshwork::contract::shop::order::v1::OrderState;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    check::{Finding, Kind, check},
    event_log,
    evidence::{Evidence, Fact, Log},
    load::Load,
    reads::Reads,
    view_side, write_side,
};
use crate::{direct, report::Failures, shop_processes::ShopProcesses};

/// How long orders may stay pending: the saga's deadline of 30 s, and the leases of processes that were killed last.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long the last releases and views may take after that.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A shop at rest.
pub(super) struct Settled {
    /// When no order was pending any more, or it was waited for in vain.
    pub(super) at: Instant,
    pub(super) evidence: Evidence,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
    /// Reads that failed although nobody broke anything.
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
            return Settled { at, evidence, findings, failed_reads: reads.failed() };
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Waits until no acknowledged order is pending, or time is up: then the check will tell.
async fn wait_for_orders(load: &Load, reads: &Reads) -> Result<(), Status> {
    let end = Instant::now() + SETTLE_LIMIT;
    let mut pending: Vec<String> = load.promises().into_iter().map(|promise| promise.order_id).collect();
    loop {
        pending = write_side::pending(load.calls(), reads, pending).await?;
        if pending.is_empty() || Instant::now() >= end {
            return Ok(());
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn gather(shop: &ShopProcesses, load: &Load, reads: &Reads) -> Result<Evidence, Status> {
    let (calls, promises) = (load.calls(), load.promises());
    let sources = ["order", "customer"].map(|source| event_log::read(source, shop.mesh().channel(source)));
    let logs = try_join_all(sources).await?;
    let ids = |of: fn(&Fact) -> Option<&String>| told(&logs, of);
    let mut order_ids = ids(|fact| match fact {
        Fact::OrderCreated { order_id } => Some(order_id),
        _ => None,
    });
    order_ids.extend(promises.iter().map(|promise| promise.order_id.clone()));
    let mut customer_ids = ids(|fact| match fact {
        Fact::CustomerCreated { customer_id, .. } => Some(customer_id),
        _ => None,
    });
    customer_ids.extend(load.customers());
    let customer_ids: Vec<String> = customer_ids.into_iter().collect();

    let orders = write_side::orders(calls, reads, order_ids.into_iter().collect()).await?;
    let customers = write_side::customers(calls, reads, customer_ids.clone()).await?;
    let mut views = Vec::new();
    for instance in shop.instances("query") {
        let unreachable = |error| Status::unavailable(format!("{} cannot be reached: {error}", instance.name()));
        let client = direct::query(instance).await.map_err(unreachable)?;
        views.push(view_side::view(&client, reads, instance.name(), &customer_ids).await?);
    }
    Ok(Evidence { promises, orders, customers, logs, views })
}

/// The ids that the logs tell.
fn told(logs: &[Log], of: fn(&Fact) -> Option<&String>) -> BTreeSet<String> {
    let events = logs.iter().flat_map(|log| &log.batches).flat_map(|batch| &batch.events);
    events.filter_map(|event| of(&event.fact)).cloned().collect()
}
