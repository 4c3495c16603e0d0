//! How long orders wait for a customer process that was killed, and whether any of them is lost.
//!
//! Real processes and a steady, light load, twice in a round:
//!
//! 1. on SQLite the only customer process is killed and started again a second later;
//! 2. on PostgreSQL one of two customer processes is killed and stays away: the other takes its partitions over.

mod ledger;

use std::{path::Path, time::Duration};

use meshwork_cli::fleet::Replicas;
use meshwork_fixture::ServerError;
use meshwork_harness::{
    report::{Failures, Figures, RunOutcome, medians, worst},
    shop_processes::{self, Config, Instance, Programs, ShopProcesses, Store, Tls},
};
use tokio::time::{Instant, sleep};

use crate::load::{Buyers, Error, Open, open};
use ledger::Ledger;

/// Orders per second.
const ORDERS_PER_S: u32 = 20;
/// Load before the kill, in which every process has had its share of the work.
const BEFORE: Duration = Duration::from_secs(3);
/// How long the killed process is down.
const AWAY: Duration = Duration::from_secs(1);
/// Load after that: longer than a lease of a partition, so that orders that wait for one to end are included.
const AFTER: Duration = Duration::from_secs(9);

const SETUP: &str = "Registry, customer, order and query as processes on one machine, 20 orders/s in an open loop from this \
    process; an order counts from when it was due until it was seen APPROVED on a QueryService.WatchOrders stream. On SQLite the \
    only customer process is killed (SIGKILL) and started again 1 s later: settled_after_ready_ms is the time from its saying \
    that it is ready until the last order that was due before was settled. On PostgreSQL, of two customer processes one is killed \
    and stays away: longest_wait_two_instances_ms is the longest that any order took; its bound is 5 s: the \
    membership lease of 4 s and the heartbeat of 1 s at which it is looked at. lost counts orders that did not end, and reservations that are not \
    there exactly once, by the order and customer services' own word at the end. Figures are medians of the rounds, lost is the \
    worst.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh recover                                  what docs/measured.md shows
  cargo bench-mesh recover --rounds 1                       a quick look

Where PostgreSQL is not installed, its figure is left out.")]
pub(crate) struct Args {
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
}

/// Measures the recovery, with databases under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let programs = Programs::build(env!("CARGO_PKG_NAME")).await.map_err(shop_processes::Error::from)?;
    let (mut rounds, mut failures) = (Vec::new(), Failures::default());
    for round in 1..=args.rounds {
        let config = |store, customer| {
            let replicas = Replicas { customer, ..Replicas::all(1) };
            Config {
                folder: scratch.join(format!("{round}-{store:?}")),
                store,
                replicas,
                fronted: false,
                registries: 1,
                tls: Tls::Off,
            }
        };
        let mut figures = Figures::default();
        eprintln!("round {round} of {}: the only customer process is killed and started again", args.rounds);
        let sqlite = Case::open(&programs, &config(Store::Sqlite, 1)).await?;
        let found = sqlite.kill_and_restart().await?;
        let mut lost = found.lost;
        figures.add("settled_after_ready_ms", found.ms);
        failures.merge(found.failures);

        eprintln!("round {round} of {}: one of two customer processes is killed", args.rounds);
        match Case::open(&programs, &config(Store::Postgres, 2)).await {
            Ok(postgres) => {
                let found = postgres.kill_one_of_two().await?;
                lost += found.lost;
                figures.add("longest_wait_two_instances_ms", found.ms);
                failures.merge(found.failures);
            }
            Err(Error::Shop(shop_processes::Error::Postgres(ServerError::NotInstalled))) => {
                eprintln!("PostgreSQL is not installed: its figure is left out");
            }
            Err(error) => return Err(error),
        }
        figures.add("lost", lost as f64);
        rounds.push(figures);
    }
    let mut figures = medians(&rounds);
    figures.set("lost", worst(&rounds, "lost"));
    Ok(RunOutcome { setup: SETUP, figures, rounds, failures })
}

/// A shop with its buyers, of which a customer process will be killed.
struct Case {
    shop: ShopProcesses,
    buyers: Buyers,
    ledger: Ledger,
}

/// What a case has found.
struct Found {
    ms: f64,
    lost: u64,
    failures: Failures,
}

impl Case {
    async fn open(programs: &Programs, config: &Config) -> Result<Self, Error> {
        let shop = ShopProcesses::start(programs, config).await?;
        let buyers = Buyers::open(shop.mesh()).await?;
        Ok(Self { shop, buyers, ledger: Ledger::default() })
    }

    async fn kill_and_restart(self) -> Result<Found, Error> {
        let fault = async |customer: &Instance| {
            sleep(BEFORE).await;
            customer.kill();
            sleep(AWAY).await;
            customer.start().await?;
            Ok(())
        };
        self.measure(fault, settled_after).await
    }

    async fn kill_one_of_two(self) -> Result<Found, Error> {
        let fault = async |customer: &Instance| {
            sleep(BEFORE).await;
            customer.kill();
            Ok(())
        };
        self.measure(fault, |sample, _| sample.latency_ms(1.0)).await
    }

    /// Orders while `fault` happens to the first customer process; `figure` is made from the orders, and from how long after
    /// the first of them it was over.
    async fn measure(
        self,
        fault: impl AsyncFnOnce(&Instance) -> Result<(), Error>,
        figure: impl FnOnce(&open::Sample, Duration) -> f64,
    ) -> Result<Found, Error> {
        let load = Open { per_s: ORDERS_PER_S, warm_up: Duration::ZERO, window: BEFORE + AWAY + AFTER };
        let (buyer, ledger) = (self.buyers.buyer(), self.ledger.clone());
        let order = |number| ledger.clone().buy(buyer.clone(), number);
        let customer = self.shop.instances("customer")[0];
        let begin = Instant::now();
        let fault = async { fault(customer).await.map(|()| begin.elapsed()) };
        let (sample, over) = tokio::join!(load.run(order, self.buyers.lost()), fault);
        let (ms, lost) = (figure(&sample, over?), self.ledger.lost(self.shop.mesh()).await?);
        self.buyers.close().await;
        let mut failures = sample.failures;
        if lost > 0 {
            failures.add(format!("{lost} orders have not ended, or are not reserved exactly once"));
        }
        Ok(Found { ms, lost, failures })
    }
}

/// Milliseconds from `ready` until the last of the orders that were due before has ended.
fn settled_after(sample: &open::Sample, ready: Duration) -> f64 {
    let waiting = sample.ended.iter().filter(|order| order.due < ready);
    let settled = waiting.map(|order| order.due + order.took).max().unwrap_or(ready);
    settled.saturating_sub(ready).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::Ended;

    #[test]
    fn only_orders_that_waited_are_waited_for() {
        let s = Duration::from_secs;
        let order = |due, end| Ended { due: s(due), took: s(end - due), failure: None };
        let sample = open::Sample { ended: vec![order(1, 2), order(3, 7), order(6, 9)], ..Default::default() };
        assert_eq!(settled_after(&sample, s(5)), 2_000.0);
        assert_eq!(settled_after(&sample, s(8)), 1_000.0);
        assert_eq!(settled_after(&sample, s(0)), 0.0);
    }
}
