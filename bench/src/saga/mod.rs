//! The order saga under load: orders per second from CreateOrder to a terminal state seen on one watch stream.
//!
//! The whole mesh and the load generator share one process and so its cores, as in `meshwork up`. They speak over TCP
//! and keep what they acknowledge on disk, as in production. A round measures, one after another:
//!
//! 1. `meshwork up`, the release binary, as a process of its own: how soon it is ready and what it holds when idle;
//! 2. on SQLite, one instance of each service: the closed loop at full width, then at one in flight, then the open loop;
//! 3. on SQLite, two instances of each: the closed loop at full width;
//! 4. on PostgreSQL, if it is installed, one instance of each: the closed loop at full width, then the open loop;
//! 5. pgbench's single-row inserts on the same server.

mod error;
mod pgbench;
mod shop;
mod startup;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use meshwork_cli::fleet::{Databases, Replicas, Views};
use meshwork_fixture::Server;
use meshwork_harness::report::{Failures, Figures, RunOutcome, medians};

use crate::{
    load::{Closed, Open},
    postgres,
};
pub(crate) use error::Error;
use pgbench::Inserts;
use shop::Shop;

/// Load that is not measured, before each measurement: connections, caches and the first WAL checkpoints.
const WARM_UP: Duration = Duration::from_secs(3);
/// One in flight is measured no longer than this: a thousand orders tell its median.
const AT_ONE_LIMIT: Duration = Duration::from_secs(5);

/// Orders per second of the open loop: a load that both stores carry with room to spare.
const PACE: u32 = 500;

/// pgbench is measured no longer than this: it is steady.
const PGBENCH_LIMIT_S: u64 = 5;

const SETUP: &str = "Everything in one process: every instance of the mesh, the load generator and the watcher share its \
    cores; calls go over loopback TCP, write sides are SQLite files with synchronous=FULL or databases of a PostgreSQL server of \
    this run on the same machine and disk, as initdb makes it (fsync and synchronous_commit on); views are SQLite files with \
    synchronous=NORMAL. An order counts from before CreateOrder until it was seen APPROVED on one QueryService.WatchOrders stream; \
    in the open loop, 500 orders/s, from when it was due, and p99_ms_at_500_per_s is the worse of the stores. cpu_us_per_order is \
    user and system time of that whole process, load generator included, at full width with one instance of each service on \
    SQLite; p50_ms and p99_ms are from there too, p50_ms_at_1 with one order in flight. pgbench_N_tps is single-row inserts, each \
    a transaction, prepared, of N clients. ready_ms and idle_rss_mb (MiB) are of a `meshwork up` process with two instances of \
    each service. Figures are medians of the rounds.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh saga                                     every figure
  cargo bench-mesh saga --seconds 3 --rounds 1              a quick look
  cargo bench-mesh saga --in-flight 256 --out /tmp/bench    wider, and the report elsewhere

Where PostgreSQL is not installed (Debian: apt-get install postgresql), its figures are left out.")]
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
    fn full_width(&self) -> Closed {
        let in_flight = usize::try_from(self.in_flight).expect("bounded by its parser");
        Closed { in_flight, warm_up: WARM_UP, window: Duration::from_secs(self.seconds) }
    }

    fn paced(&self) -> Open {
        Open { per_s: PACE, warm_up: WARM_UP, window: Duration::from_secs(self.seconds) }
    }

    fn at_one(&self) -> Closed {
        let window = Duration::from_secs(self.seconds).min(AT_ONE_LIMIT);
        Closed { in_flight: 1, warm_up: WARM_UP.min(window), window }
    }
}

/// Measures the saga, with databases under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let meshwork = startup::binary().await?;
    let folder = scratch.join("postgres");
    std::fs::create_dir(&folder).map_err(Error::Folder)?;
    let server = postgres::start(&folder)?;
    let (mut rounds, mut failures) = (Vec::new(), Failures::default());
    for number in 1..=args.rounds {
        let folder = scratch.join(number.to_string());
        let mut round = Round { args, number, folder, figures: Figures::default(), failures: Failures::default() };
        round.start(&meshwork).await?;
        let mut p99_ms_at_pace = round.sqlite().await?;
        if let Some(server) = &server {
            p99_ms_at_pace = p99_ms_at_pace.max(round.postgres(server).await?);
            round.pgbench(server).await?;
        }
        round.figures.add("p99_ms_at_500_per_s", p99_ms_at_pace);
        failures.merge(round.failures);
        rounds.push(round.figures);
    }
    Ok(RunOutcome { setup: SETUP, figures: medians(&rounds), rounds, failures })
}

/// One round, and what it has found.
struct Round<'a> {
    args: &'a Args,
    number: u64,
    folder: PathBuf,
    figures: Figures,
    failures: Failures,
}

impl Round<'_> {
    /// `meshwork up`, as its users start it.
    async fn start(&mut self, meshwork: &Path) -> Result<(), Error> {
        self.progress("meshwork up");
        let startup = startup::measure(meshwork, self.folder.join("up")).await?;
        self.figures.add("ready_ms", startup.ready.as_secs_f64() * 1_000.0);
        self.figures.add("idle_rss_mb", startup.idle_rss_mb);
        Ok(())
    }

    /// Everything on SQLite. Returns the 99th percentile at the fixed pace.
    async fn sqlite(&mut self) -> Result<f64, Error> {
        let shop = Shop::open(&self.folder.join("one"), Replicas::all(1), Databases::Sqlite).await?;
        self.progress("SQLite, one instance of each service");
        let one = shop.drive(self.args.full_width()).await;
        self.progress("SQLite, one instance of each service, one in flight");
        let at_one = shop.drive(self.args.at_one()).await;
        self.progress("SQLite, one instance of each service, at a fixed pace");
        let paced = shop.offer(self.args.paced()).await;
        shop.close().await?;

        let shop = Shop::open(&self.folder.join("two"), Replicas::all(2), Databases::Sqlite).await?;
        self.progress("SQLite, two instances of each service");
        let two = shop.drive(self.args.full_width()).await;
        shop.close().await?;

        let p99_ms_at_pace = paced.latency_ms(0.99);
        self.figures.add("sqlite_orders_per_s", one.orders_per_s());
        self.figures.add("sqlite_orders_per_s_2", two.orders_per_s());
        self.figures.add("cpu_us_per_order", one.cpu_us_per_order());
        self.figures.add("p50_ms", one.latency_ms(0.50));
        self.figures.add("p99_ms", one.latency_ms(0.99));
        self.figures.add("p50_ms_at_1", at_one.latency_ms(0.50));
        self.figures.add("sqlite_p99_ms_at_500_per_s", p99_ms_at_pace);
        for sample in [one, at_one, two] {
            self.failures.merge(sample.failures());
        }
        self.failures.merge(paced.failures);
        Ok(p99_ms_at_pace)
    }

    /// The same shop on PostgreSQL. Returns the 99th percentile at the fixed pace.
    async fn postgres(&mut self, server: &Server) -> Result<f64, Error> {
        let url = server.url(&format!("round_{}", self.number)).parse().expect("a URL with a short name");
        let databases = Databases::Postgres { url, views: Views::Private };
        let shop = Shop::open(&self.folder.join("postgres"), Replicas::all(1), databases).await?;
        self.progress("PostgreSQL, one instance of each service");
        let one = shop.drive(self.args.full_width()).await;
        self.progress("PostgreSQL, one instance of each service, at a fixed pace");
        let paced = shop.offer(self.args.paced()).await;
        shop.close().await?;

        let p99_ms_at_pace = paced.latency_ms(0.99);
        self.figures.add("postgres_orders_per_s", one.orders_per_s());
        self.figures.add("postgres_p99_ms_at_500_per_s", p99_ms_at_pace);
        self.failures.merge(one.failures());
        self.failures.merge(paced.failures);
        Ok(p99_ms_at_pace)
    }

    /// pgbench on the same server.
    async fn pgbench(&mut self, server: &Server) -> Result<(), Error> {
        self.progress("pgbench, single-row inserts");
        let seconds = self.args.seconds.min(PGBENCH_LIMIT_S);
        let inserts = Inserts::prepare(server, &self.folder).await?;
        self.figures.add("pgbench_1_tps", inserts.per_s(1, seconds).await?);
        self.figures.add("pgbench_16_tps", inserts.per_s(16, seconds).await?);
        Ok(())
    }

    fn progress(&self, what: &str) {
        eprintln!("round {} of {}: {what}", self.number, self.args.rounds);
    }
}
