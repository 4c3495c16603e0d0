//! The experiment of Finagle's "Beyond Round Robin": what one bad endpoint of eleven does to the calls of a service.
//!
//! Every strategy faces the same: for the middle half of its run one endpoint answers after two seconds, or refuses, or is
//! silent, or gone. A call that has no answer after a second has failed.

mod error;
mod plot;
mod strategy;

use std::{path::PathBuf, time::Duration};

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use futures_util::future::try_join_all;
use meshwork::contract::meshwork::registry::v1::Instance;
use meshwork_harness::{
    process::Process,
    report::{Failures, Figures, RunOutcome, quantile_ms},
};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    echo::{Echo, SERVICE, behave, contract::Behaviour},
    open_loop::{Ended, offer},
};
pub(crate) use error::Error;
use strategy::Strategy;

/// Endpoints that are well throughout.
const GOOD: usize = 10;
/// The usual time to an answer, and how far it spreads.
const LATENCY: (Duration, Duration) = (Duration::from_millis(167), Duration::from_millis(5));
/// The time to an answer of the endpoint that is slow.
const SLOW: Duration = Duration::from_secs(2);
/// A call without an answer by then has failed.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Between two runs: what was under way ends, and a process that was stopped is found again.
const PAUSE: Duration = Duration::from_secs(3);

const SETUP: &str = "Open loop against 11 endpoints (two server processes, the bad endpoint has its own) whose answers \
    take 167 ms, standard deviation 5 ms, by a timer; from a quarter to three quarters of each run one endpoint answers after \
    2 s (or is refusing: UNAVAILABLE at once; flaky: every second call UNAVAILABLE; silent: accepts and never answers; vanished: \
    its process is stopped). The timeout is 1 s, the method NO_SIDE_EFFECTS. success_*: per cent of all calls of a run. \
    Every strategy has the same transport but Meshwork its own; round robin, random, P2C over pending calls and over \
    PeakEWMA are tower's balance over tonic's channels. One round: a run is many thousand calls.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh tail                          what docs/measured.md shows; draws docs/tail.svg
  cargo bench-mesh tail --seconds 12 --plot ''   a quick look, without a picture")]
pub(crate) struct Args {
    /// How long each run takes
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(4..=3600))]
    pub(crate) seconds: u64,
    /// Calls that begin each second
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) per_s: u32,
    /// Where the picture of success over time goes; empty: nowhere
    // Not by clap's own parser of paths, which refuses the empty one.
    #[arg(
        long,
        default_value = "docs/tail.svg",
        value_name = "FILE",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) plot: PathBuf,
    /// Only the runs whose name contains this, such as meshwork or meshwork_silent
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) only: String,
}

/// What is wrong with the bad endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Slow,
    Refusing,
    Flaky,
    Silent,
    Vanished,
}

/// Every run, in order: who faces what, and what its figure is called.
const RUNS: [(&str, Strategy, Fault); 10] = [
    ("round_robin", Strategy::RoundRobin, Fault::Slow),
    ("random", Strategy::Random, Fault::Slow),
    ("p2c_pending", Strategy::P2cPending, Fault::Slow),
    ("peak_ewma", Strategy::PeakEwma, Fault::Slow),
    ("meshwork", Strategy::Meshwork, Fault::Slow),
    ("meshwork_no_retry", Strategy::MeshworkNoRetry, Fault::Slow),
    ("meshwork_refusing", Strategy::Meshwork, Fault::Refusing),
    ("meshwork_flaky", Strategy::Meshwork, Fault::Flaky),
    ("meshwork_silent", Strategy::Meshwork, Fault::Silent),
    ("meshwork_vanished", Strategy::Meshwork, Fault::Vanished),
];

/// Makes the experiment.
pub(crate) async fn run(args: &Args) -> Result<RunOutcome, Error> {
    let service = Service::start().await?;
    let time = Duration::from_secs(args.seconds);
    let (mut figures, mut failures, mut curves) = (Figures::default(), Failures::default(), Vec::new());
    for (name, strategy, fault) in RUNS.into_iter().filter(|(name, ..)| name.contains(&args.only)) {
        eprintln!("{name}: {} s", args.seconds);
        let calls = strategy.connect(&service.echo, &service.addresses()).await?;
        let (ended, faulty) = tokio::join!(offer(args.per_s, time, || calls.call(TIMEOUT)), service.fail(fault, time));
        faulty?;
        calls.close().await;
        let (succeeded, all) = (ended.iter().filter(|ended| ended.failure.is_none()).count(), ended.len());
        figures.add(format!("success_{name}"), 100.0 * succeeded as f64 / all as f64);
        figures.add(format!("p99_ms_{name}"), quantile_ms(ended.iter().map(|ended| ended.took), 0.99));
        explain(&ended);
        if all == 0 {
            failures.add("no call was made");
        }
        curves.push((name, plot::per_second(&ended)));
        sleep(PAUSE).await;
    }
    if !args.plot.as_os_str().is_empty() {
        let written = plot::write(&args.plot, &curves);
        written.map_err(|source| Error::Plot { path: args.plot.clone(), source })?;
    }
    service.echo.stop().await;
    Ok(RunOutcome { setup: SETUP, rounds: vec![figures.clone()], figures, failures })
}

/// Failures of a run by their kind: they are what the experiment is about, so they do not void it.
fn explain(ended: &[Ended]) {
    let mut kinds = std::collections::BTreeMap::new();
    for failure in ended.iter().filter_map(|ended| ended.failure.as_ref()) {
        *kinds.entry(failure).or_insert(0) += 1;
    }
    kinds.into_iter().for_each(|(failure, count)| eprintln!("  {count} x {failure}"));
}

/// Eleven endpoints, of which one can be made bad.
struct Service {
    echo: Echo,
    _good: Process,
    bad: Process,
    instances: Vec<Instance>,
    /// Where the bad one is.
    bad_address: String,
}

impl Service {
    async fn start() -> Result<Self, Error> {
        let echo = Echo::start().await?;
        let bad = echo.spawn(&[])?;
        let bad_address = echo.serving(SERVICE, 1).await?[0].address.clone();
        let good = echo.spawn(&["--endpoints", &GOOD.to_string()])?;
        let instances = echo.serving(SERVICE, GOOD + 1).await?;
        let (latency, deviation) = LATENCY;
        let spread = |instance: &Instance| {
            let address = instance.address.clone();
            async move { behave(&address, Behaviour::Spread, latency, deviation).await }
        };
        try_join_all(instances.iter().map(spread)).await?;
        Ok(Self { echo, _good: good, bad, instances, bad_address })
    }

    fn addresses(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.address.clone()).collect()
    }

    /// Lets the bad endpoint be bad from a quarter to three quarters of `time`.
    async fn fail(&self, fault: Fault, time: Duration) -> Result<(), Error> {
        sleep(time / 4).await;
        let (latency, deviation) = LATENCY;
        let become_ = |kind, latency, deviation| behave(&self.bad_address, kind, latency, deviation);
        match fault {
            Fault::Slow => become_(Behaviour::Spread, SLOW, Duration::ZERO).await?,
            Fault::Refusing => become_(Behaviour::Refusing, latency, deviation).await?,
            Fault::Flaky => become_(Behaviour::Flaky, latency, deviation).await?,
            Fault::Silent => become_(Behaviour::Silent, latency, deviation).await?,
            Fault::Vanished => self.bad.signal(Signal::STOP)?,
        }
        sleep(time / 2).await;
        match fault {
            Fault::Vanished => self.bad.signal(Signal::CONT)?,
            Fault::Slow | Fault::Refusing | Fault::Flaky | Fault::Silent => {
                become_(Behaviour::Spread, latency, deviation).await?;
            }
        }
        Ok(())
    }
}
