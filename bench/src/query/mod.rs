//! The read side while orders come in: reads per second over 1, 2 and 3 query instances, and how far their views are behind.
//!
//! Real processes: registry, customer, order, and the query instances, each with its own view in a SQLite file. Orders
//! come in at a fixed rate the whole time, first without reads, then with them.

mod reads;
mod views;

use std::{path::Path, time::Duration};

use meshwork_cli::fleet::Replicas;
use meshwork_harness::{
    report::{Failures, Figures, RunOutcome, medians},
    shop_processes::{self, Config, Programs, ShopProcesses, Store, Tls},
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::load::{Buyers, Error, Open, Placed};
use reads::Reads;
use views::Views;

/// Orders per second that come in meanwhile.
const ORDERS_PER_S: u32 = 500;
/// Load before anything is measured: connections, caches, and orders that can be read.
const WARM_UP: Duration = Duration::from_secs(3);
/// How many query instances, one after another.
const INSTANCES: [usize; 3] = [1, 2, 3];
/// How long the views may take to show the last orders.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

const SETUP: &str = "Registry, customer, order and query as processes, write sides in SQLite files with synchronous=FULL, every \
    query instance with its own view in a SQLite file with synchronous=NORMAL; 500 orders/s are placed in an open loop \
    from this process, which also reads: GetOrder and ListOrders (pages of 10) in turn, in a closed loop over all \
    query instances. \
    reads_per_s_N is of N instances together. All of it shares the machine's cores: instances more than cores add \
    folding (every view folds every event) and no CPU, so that reads per second are bound by cores / (CPU for each read, client \
    included); query_cpu_us_per_read_N, the CPU of the query processes with reads less that without, is what says whether \
    reads scale. lag_p99_ms is the time from CreateOrder's answer until the order was seen on a WatchOrders stream of a \
    view, at the worst view of the worst N, while the readers keep every core busy; lag_p99_ms_without_reads is the same while \
    there are no reads. Figures are medians of the rounds.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh query                                    every figure
  cargo bench-mesh query --seconds 3 --rounds 1             a quick look")]
pub(crate) struct Args {
    /// How long is measured without reads, and again with them, for each number of instances
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How many reads are under way
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) readers: u64,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
}

/// Measures the read side, with databases under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let programs = Programs::build(env!("CARGO_PKG_NAME")).await.map_err(shop_processes::Error::from)?;
    let (mut rounds, mut failures) = (Vec::new(), Failures::default());
    for round in 1..=args.rounds {
        let mut stages = Vec::new();
        for instances in INSTANCES {
            eprintln!("round {round} of {}: query instances: {instances}", args.rounds);
            let folder = scratch.join(format!("{round}-{instances}"));
            let replicas = Replicas { query: instances, ..Replicas::all(1) };
            let shop = ShopProcesses::start(
                &programs,
                &Config { folder, store: Store::Sqlite, replicas, fronted: false, registries: 1, tls: Tls::Off },
            )
            .await?;
            let mut stage = measure(args, &shop, instances).await?;
            shop.close().await?;
            failures.merge(std::mem::take(&mut stage.failures));
            stages.push(stage);
        }
        rounds.push(figures(&stages));
    }
    Ok(RunOutcome { setup: SETUP, figures: medians(&rounds), rounds, failures })
}

/// What was found at one number of instances.
struct Stage {
    instances: usize,
    reads_per_s: f64,
    query_cpu_us_per_read: f64,
    lag_p99_ms: f64,
    lag_p99_ms_without_reads: f64,
    failures: Failures,
}

async fn measure(args: &Args, shop: &ShopProcesses, instances: usize) -> Result<Stage, Error> {
    let window = Duration::from_secs(args.seconds);
    let readers = usize::try_from(args.readers).expect("bounded by its parser");
    let buyers = Buyers::open(shop.mesh()).await?;
    let views = Views::watch(shop).await?;

    let (buyer, placed) = (buyers.buyer(), Placed::default());
    let order = |number| {
        let (placed, mut buyer) = (placed.clone(), buyer.clone());
        async move { placed.place(&mut buyer, number).await.map(drop) }
    };
    let load = Open { per_s: ORDERS_PER_S, warm_up: Duration::ZERO, window: WARM_UP + window * 2 };
    let without_reads = Instant::now() + WARM_UP;
    let with_reads = without_reads + window;
    let reading = async {
        sleep_until(without_reads).await;
        let (known, before) = (placed.orders(), query_cpu(shop)?);
        sleep_until(with_reads).await;
        let between = query_cpu(shop)?;
        let known: Vec<Uuid> = known.into_iter().map(|order| order.id).collect();
        let reads = reads::read(shop.mesh(), &buyer, &known, readers, window).await;
        let cpu = (query_cpu(shop)? - between).saturating_sub(between - before);
        Ok::<_, Error>((reads, cpu))
    };
    let (sample, read) = tokio::join!(load.run(order, buyers.lost()), reading);
    let (Reads { count, mut failures }, cpu) = read?;
    failures.merge(sample.failures);

    let orders: Vec<_> = placed.orders().into_iter().map(|order| (order.id, order.at)).collect();
    let lag_p99_ms = |from, until| {
        let orders: Vec<_> = orders.iter().filter(|(_, at)| (from..until).contains(at)).copied().collect();
        views.lag_p99_ms(&orders)
    };
    views.show(&orders, CATCH_UP_LIMIT).await?;
    let stage = Stage {
        instances,
        reads_per_s: count as f64 / window.as_secs_f64(),
        query_cpu_us_per_read: cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
        lag_p99_ms: lag_p99_ms(with_reads, with_reads + window),
        lag_p99_ms_without_reads: lag_p99_ms(without_reads, with_reads),
        failures,
    };
    buyers.close().await;
    Ok(stage)
}

/// CPU time of all query processes since their start.
fn query_cpu(shop: &ShopProcesses) -> Result<Duration, Error> {
    shop.instances("query").into_iter().map(|instance| Ok(instance.cpu_time()?)).sum()
}

fn figures(stages: &[Stage]) -> Figures {
    let mut figures = Figures::default();
    for stage in stages {
        figures.add(format!("reads_per_s_{}", stage.instances), stage.reads_per_s);
    }
    for stage in stages {
        figures.add(format!("query_cpu_us_per_read_{}", stage.instances), stage.query_cpu_us_per_read);
    }
    let worst = |lag: fn(&Stage) -> f64| stages.iter().map(lag).fold(0.0, f64::max);
    figures.add("lag_p99_ms", worst(|stage| stage.lag_p99_ms));
    figures.add("lag_p99_ms_without_reads", worst(|stage| stage.lag_p99_ms_without_reads));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(instances: usize, lag_p99_ms: f64) -> Stage {
        let (reads_per_s, query_cpu_us_per_read) = (1_000.0, 50.0);
        Stage {
            instances,
            reads_per_s,
            query_cpu_us_per_read,
            lag_p99_ms,
            lag_p99_ms_without_reads: 1.0,
            failures: Failures::default(),
        }
    }

    #[test]
    fn the_lag_is_that_of_the_worst_number_of_instances() {
        let mut expected = Figures::default();
        for (name, value) in [("reads_per_s", 1_000.0), ("query_cpu_us_per_read", 50.0)] {
            (1..=2).for_each(|instances| expected.add(format!("{name}_{instances}"), value));
        }
        expected.add("lag_p99_ms", 7.0);
        expected.add("lag_p99_ms_without_reads", 1.0);
        assert_eq!(figures(&[stage(1, 7.0), stage(2, 3.0)]), expected);
    }
}
