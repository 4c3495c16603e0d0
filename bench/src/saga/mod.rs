//! The order saga under load: orders per second from CreateOrder to a terminal state seen on one watch stream.
//!
//! The whole mesh and the load generator share one process and so its cores, as in `meshwork up`. They speak over TCP
//! and keep what they acknowledge on disk, as everybody does. A round measures, one after another:
//!
//! 1. `meshwork up`, the release binary, as a process of its own: how soon it is ready and what it holds when idle;
//! 2. one instance of each service: the closed loop at full width, then at one in flight;
//! 3. two instances of each: the closed loop at full width.

mod arrivals;
mod load;
mod shop;
mod startup;

use std::{path::Path, time::Duration};

use meshwork::MeshError;
use meshwork_cli::fleet::{self, Replicas};

use crate::{
    process,
    report::{Failures, Figures, Outcome, medians},
};

use load::Load;
use shop::Shop;

/// Load that is not measured, before each measurement: connections, caches and the first WAL checkpoints.
const WARM_UP: Duration = Duration::from_secs(3);
/// One in flight is measured no longer than this: a thousand orders tell its median.
const AT_ONE_LIMIT: Duration = Duration::from_secs(5);

const SETUP: &str = "Closed loop in one process: every instance of the mesh, the load generator and the watcher share its \
    cores; calls go over loopback TCP, write sides are SQLite files with synchronous=FULL, views with synchronous=NORMAL. An order counts from before \
    CreateOrder until it was seen APPROVED on one QueryService.WatchOrders stream. cpu_us_per_order is user and system \
    time of that whole process, load generator included, at full width with one instance of each service; p50_ms and \
    p99_ms are from there too, p50_ms_at_1 with one order in flight. ready_ms and idle_rss_mb (MiB) are of a `meshwork \
    up` process with two instances of each service. Figures are medians of the rounds.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh saga                                     what the README shows
  cargo bench-mesh saga --seconds 3 --rounds 1              a quick look
  cargo bench-mesh saga --in-flight 256 --out /tmp/bench    wider, and the report elsewhere")]
pub(crate) struct Args {
    /// How long each measurement at full width takes, after its warm-up
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How many orders are under way at full width
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) in_flight: u64,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
}

impl Args {
    fn full_width(&self) -> Load {
        let in_flight = usize::try_from(self.in_flight).expect("bounded by its parser");
        Load { in_flight, warm_up: WARM_UP, window: Duration::from_secs(self.seconds) }
    }

    fn at_one(&self) -> Load {
        let window = Duration::from_secs(self.seconds).min(AT_ONE_LIMIT);
        Load { in_flight: 1, warm_up: WARM_UP.min(window), window }
    }
}

/// Why the saga could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The mesh does not start.
    #[error("the mesh did not start: {0}")]
    Fleet(#[from] fleet::Error),
    /// The load generator's own view of the mesh.
    #[error("the mesh cannot be reached: {0}")]
    Mesh(#[from] MeshError),
    /// The shop cannot be made ready for orders.
    #[error("{what} failed: {status}")]
    Shop {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        status: Box<tonic::Status>,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Slow {
        /// What was tried.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// `meshwork up`.
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// Measures the saga, with databases under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<Outcome, Error> {
    let meshwork = startup::binary().await?;
    let (mut rounds, mut failures) = (Vec::new(), Failures::default());
    for round in 1..=args.rounds {
        let mut figures = Figures::default();
        let folder = |part: &str| scratch.join(format!("{round}-{part}"));

        progress(args, round, "meshwork up");
        let startup = startup::measure(&meshwork, folder("up")).await?;

        let shop = Shop::open(&folder("one"), Replicas::all(1)).await?;
        progress(args, round, "one instance of each service");
        let one = shop.drive(args.full_width()).await;
        progress(args, round, "one instance of each service, one in flight");
        let at_one = shop.drive(args.at_one()).await;
        shop.close().await?;

        let shop = Shop::open(&folder("two"), Replicas::all(2)).await?;
        progress(args, round, "two instances of each service");
        let two = shop.drive(args.full_width()).await;
        shop.close().await?;

        figures.add("sqlite_orders_per_s", one.orders_per_s());
        figures.add("sqlite_orders_per_s_2", two.orders_per_s());
        figures.add("cpu_us_per_order", one.cpu_us_per_order());
        figures.add("p50_ms", one.latency_ms(0.50));
        figures.add("p99_ms", one.latency_ms(0.99));
        figures.add("p50_ms_at_1", at_one.latency_ms(0.50));
        figures.add("ready_ms", startup.ready.as_secs_f64() * 1_000.0);
        figures.add("idle_rss_mb", startup.idle_rss_mb);
        for sample in [one, at_one, two] {
            failures.merge(sample.failures());
        }
        rounds.push(figures);
    }
    Ok(Outcome { setup: SETUP, figures: medians(&rounds), rounds, failures })
}

fn progress(args: &Args, round: u64, what: &str) {
    eprintln!("round {round} of {}: {what}", args.rounds);
}
