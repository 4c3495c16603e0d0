//! The shop under load while its processes are killed, stopped and cut off; then the question whether a promise was broken.
//!
//! Modules are listed in the order of a run: [`plan`] says which faults there will be, [`faults`] carries them out while
//! [`load`] orders through [`calls`]; then [`settle`] waits for quiet and gathers the [`evidence`], and [`check`] judges it.

mod plan;

mod faults;

mod calls;
mod load;

mod settle;

mod event_log;
mod reads;
mod standing;
mod view_side;
mod write_side;

mod evidence;

mod check;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use meshwork_cli::fleet::Replicas;
use meshwork_harness::{
    process,
    report::{Failures, Figures, RunOutcome},
    run::reported,
    shop_processes::{self, Config, Programs, ShopProcesses, Store, Tls},
};
use meshwork_process::telemetry::{self, LogFormat};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use check::{Finding, Kind};
use faults::{Done, Releases};
use load::Load;
use plan::{Planned, Shape};
use settle::Settled;

/// Findings that are shown one by one; all of them are in the report.
const SHOWN: usize = 20;

const SETUP: &str = "Real processes on one machine: two registries that know nothing of each other, two or three of each service \
    (SQLite: one customer and one order), all reached through TCP proxies. An open loop of orders, each with a request_id and repeated until it is answered; some are \
    cancelled, some over the limit, some of unknown customers or in another currency. Meanwhile faults drawn from the seed: \
    SIGKILL and a new start, SIGSTOP and SIGCONT, SIGTERM and a new start, connections cut or stalled, a database's files moved \
    away, PostgreSQL restarted at once or read-only, and the orders' database set back to a backup that is 10 s and 1,000 orders \
    old, and brought back by `meshwork reconcile`. Then everything is checked: orders, credit, both event logs from position 0, \
    every view, every subscription, and what each registry lists; what was acknowledged between a backup and its restore may be \
    lost. With --old there are no faults: each process becomes one of this release, one after the other, and then one of the old \
    again, with one registry. failed_calls are attempts that failed under faults with a code that says so; settle_s is from the end of the last fault and the last \
    call until no order is pending.";

/// Puts the shop under load, breaks its processes and databases, and says whether a promise was broken.
#[derive(Debug, Parser)]
#[command(
    name = "meshwork-chaos",
    version,
    after_help = "\
Examples:
  cargo chaos-mesh                                        two minutes on SQLite, with a new seed
  cargo chaos-mesh --minutes 10 --store postgres          ten on a PostgreSQL server that it starts and breaks
  cargo chaos-mesh --minutes 3 --seed 7 --store sqlite    the faults of seed 7 again
  cargo chaos-mesh --minutes 3 --tls                      in strict mode
  cargo chaos-mesh --minutes 3 --old $(chaos/build-old)   an upgrade of each process under load, and the way back"
)]
struct Args {
    /// How long there are load and faults
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Which faults and orders: the same number gives the same plan [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What the write sides keep their data in
    #[arg(long, value_enum, default_value = "sqlite")]
    store: Store,
    /// Orders a second
    #[arg(long, default_value_t = 150, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=2000))]
    orders_per_s: u64,
    /// Instead of faults: start with the programs of this folder, which chaos/build-old has built, move each process to this
    /// release, and back
    #[arg(long, value_name = "DIR")]
    old: Option<PathBuf>,
    /// All connections are TLS between identities (strict mode), and certificates are renewed every 30 s
    #[arg(long, conflicts_with = "old")]
    tls: bool,
    /// Where the report goes, as chaos.json; databases of the run are kept there meanwhile, because a folder in memory would
    /// make durable writes look free
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // What a mesh under test complains about belongs on the screen; what it tells besides costs nothing.
    telemetry::init(LogFormat::default(), "warn").expect("a level is a filter, and nothing logs yet");
    let args = Args::parse();
    reported("chaos", &args.out, async |scratch: &Path| Box::pin(run(&args, scratch)).await).await
}

/// Why there was no run, or nothing to judge after it.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The binaries.
    #[error(transparent)]
    Build(#[from] process::Error),
    /// The processes.
    #[error(transparent)]
    Shop(#[from] shop_processes::Error),
    /// A process's log.
    #[error("cannot read {path}: {source}")]
    Log {
        /// Where it should be.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the shop, with its data under `scratch`.
async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let old = args.old.as_ref().map(|folder| format!(" --old {}", folder.display())).unwrap_or_default();
    let tls = if args.tls { " --tls" } else { "" };
    let replay = format!(
        "cargo chaos-mesh --minutes {} --seed {seed} --store {} --orders-per-s {}{old}{tls}",
        args.minutes,
        args.store.name(),
        args.orders_per_s
    );
    eprintln!("{replay}");
    let new = Programs::build(env!("CARGO_PKG_NAME")).await?;
    let old = args.old.clone().map(Programs::Built);
    // Meshwork 0.1 uses the first registry of a list that answers.
    let registries = if old.is_some() { 1 } else { 2 };
    let replicas = match args.store {
        Store::Sqlite => Replicas { customer: 1, order: 1, query: 2 },
        Store::Postgres => Replicas { customer: 2, order: 3, query: 2 },
    };
    let (folder, store) = (scratch.to_path_buf(), args.store);
    let tls = if args.tls { Tls::Renewed } else { Tls::Off };
    let config = Config { folder, store, replicas, fronted: true, registries, tls };
    let shop = ShopProcesses::start(old.as_ref().unwrap_or(&new), &config).await?;
    let length = Duration::from_secs(60 * args.minutes);
    let shape = Shape { store, registries, services: shop.services().iter().map(|i| i.service()).collect() };
    let (plan, releases) = match old {
        Some(old) => (plan::moves(length, &shape), Releases { new, old }),
        None => (plan::plan(seed, length, &shape), Releases { old: new.clone(), new }),
    };
    let outcome = Run { seed, length, orders_per_s: args.orders_per_s, plan, releases }.on(shop).await?;
    if !outcome.failures.is_empty() {
        eprintln!("to replay: {replay}");
    }
    Ok(outcome)
}

/// A load, and faults beside it.
struct Run {
    seed: u64,
    length: Duration,
    orders_per_s: u64,
    plan: Vec<Planned>,
    releases: Releases,
}

impl Run {
    async fn on(self, shop: ShopProcesses) -> Result<RunOutcome, Error> {
        let shop = Arc::new(shop);
        let load = Arc::new(Load::begin(shop.mesh(), &mut StdRng::seed_from_u64(self.seed)).await);
        let faults = faults::carry_out(self.plan, &shop, &load, self.releases);
        let (left_out, done) = tokio::join!(load.run(self.seed, self.orders_per_s, self.length), faults);
        eprintln!("load and faults are over, {} orders are acknowledged", load.acknowledged());
        load.done().await;
        eprintln!("every call is answered, {} orders are acknowledged", load.acknowledged());
        let quiet = Instant::now();
        let settled = settle::settle(&shop, &load).await;
        let Done { faults, failures: mut broken } = done;
        let calls = load.calls().take_tally();
        broken.merge(calls.wrong);
        load.wrongly_missed().into_iter().for_each(|missed| broken.add(missed));
        for instance in shop.all() {
            if let Err(error) = instance.lives() {
                broken.add(error.to_string());
            }
        }
        let logs: Vec<PathBuf> = shop.all().map(|instance| instance.log().to_path_buf()).collect();
        let shop = Arc::into_inner(shop).expect("all faults are over");
        if let Err(error) = shop.close().await {
            broken.add(format!("at the end: {error}"));
        }
        for log in logs {
            broken.merge(panics(&log)?);
        }
        for (what, count) in &calls.failed {
            eprintln!("{count} x {what}");
        }

        let mut figures = Figures::default();
        let total: u64 = faults.values().sum();
        figures.add("faults", total as f64);
        figures.add("faults_per_minute", total as f64 * 60.0 / self.length.as_secs_f64());
        for (name, count) in &faults {
            figures.add(*name, *count as f64);
        }
        figures.add("orders", load.acknowledged() as f64);
        figures.add("restored_away", settled.restored_away as f64);
        figures.add("left_out", left_out as f64);
        figures.add("failed_calls", calls.failed.values().sum::<u64>() as f64);
        settled.report(quiet, &mut figures, &mut broken);
        Ok(RunOutcome { setup: SETUP, rounds: vec![figures.clone()], figures, failures: broken })
    }
}

/// Panics that a process has logged.
fn panics(log: &Path) -> Result<Failures, Error> {
    let text = fs::read(log).map_err(|source| Error::Log { path: log.display().to_string(), source })?;
    let mut failures = Failures::default();
    for line in String::from_utf8_lossy(&text).lines().filter(|line| line.contains("panicked at")) {
        failures.add(format!("{}: {line}", log.display()));
    }
    Ok(failures)
}

impl Settled {
    fn report(self, quiet: Instant, figures: &mut Figures, broken: &mut Failures) {
        for (name, value) in self.counts() {
            figures.add(name, value as f64);
        }
        figures.add("settle_s", (self.at - quiet).as_secs_f64());
        for kind in Kind::ALL {
            let of_kind = self.findings.iter().filter(|finding| finding.kind == kind);
            figures.add(kind.figure(), of_kind.count() as f64);
        }
        figures.add("failed_reads", self.failed_reads.total() as f64);
        self.findings.iter().take(SHOWN).for_each(|finding| eprintln!("BROKEN: {finding}"));
        self.findings.iter().map(Finding::to_string).for_each(|finding| broken.add(finding));
        broken.merge(self.failed_reads);
    }
}
