//! Rolling deployments under load: how many processes can be replaced each second without a failed call.
//!
//! ```text
//!   new process ── in the registry ── has answered calls ──> SIGTERM to the old one ── drained, exit code 0 ──> one deployment
//! ```

mod traffic;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use meshwork_harness::{
    process::{self, Process},
    report::{Failures, Figures, RunOutcome, quantile_ms},
};
use tokio::{task::spawn_blocking, time::Instant};
use uuid::Uuid;

use crate::{
    echo::{self, Echo, SERVICE},
    open_loop::offer,
};
use traffic::{Reached, Traffic};

/// Processes that serve at any time.
const SLOTS: usize = 8;
/// Replacements under way at a time.
const OVERLAP: usize = 4;
/// A call may take this long; it takes a millisecond.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A new process must have answered a call by then, and an old one have left.
const STEP_LIMIT: Duration = Duration::from_secs(30);

const SETUP: &str = "Eight echo processes on Meshwork's server, registry and client in the bench's process; open loop of unary \
    NO_SIDE_EFFECTS calls with a deadline of 5 s. Four replacements are under way at a time: a new process starts, registers and has answered \
    calls; then its predecessor gets SIGTERM, drains and exits with code 0. Processes that were started, and calls, share the cores.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh deploy               what docs/measured.md shows
  cargo bench-mesh deploy --seconds 5   a quick look")]
pub(crate) struct Args {
    /// How long processes are replaced
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Calls that begin each second
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) per_s: u32,
}

/// Why deployments could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service under test.
    #[error(transparent)]
    Echo(#[from] echo::Error),
    /// A process under test.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A new process got no calls.
    #[error("a new process has answered no call within {} s", STEP_LIMIT.as_secs())]
    Idle,
}

/// Replaces processes under load.
pub(crate) async fn run(args: &Args) -> Result<RunOutcome, Error> {
    let echo = Echo::start().await?;
    let traffic = Traffic::new(&echo);
    let time = Duration::from_secs(args.seconds);
    let first = (0..SLOTS).map(|_| Ok(start(&echo)?.1)).collect::<Result<Vec<_>, Error>>()?;
    echo.serving(SERVICE, SLOTS).await?;

    let deployed = AtomicUsize::new(0);
    let until = Instant::now() + time;
    let mut slots = first.into_iter();
    let lanes = (0..OVERLAP).map(|_| {
        let old = slots.by_ref().take(SLOTS / OVERLAP).collect();
        replace(&echo, &traffic, old, until, &deployed)
    });
    let (ended, left) =
        tokio::join!(offer(args.per_s, time, || traffic.call(CALL_LIMIT)), try_join_all(lanes.collect::<Vec<_>>()));
    let left = left?;

    let (mut figures, mut failures) = (Figures::default(), Failures::default());
    let failed = ended.iter().filter_map(|ended| ended.failure.as_ref());
    let failed = failed.inspect(|failure| failures.add(failure.as_str())).count();
    figures.add("deployments_per_s", deployed.load(Ordering::Relaxed) as f64 / time.as_secs_f64());
    figures.add("deployments", deployed.load(Ordering::Relaxed) as f64);
    figures.add("calls", ended.len() as f64);
    figures.add("failed_calls", failed as f64);
    figures.add("p99_ms", quantile_ms(ended.iter().map(|ended| ended.took), 0.99));
    join_all(left.into_iter().flatten().map(stop)).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    echo.stop().await;
    Ok(RunOutcome { setup: SETUP, rounds: vec![figures.clone()], figures, failures })
}

/// Replaces the processes of one lane in turn; returns those that are left.
async fn replace(
    echo: &Echo,
    traffic: &Traffic,
    mut serving: VecDeque<Process>,
    until: Instant,
    deployed: &AtomicUsize,
) -> Result<VecDeque<Process>, Error> {
    while Instant::now() < until {
        let (instance_id, new) = start(echo)?;
        serving.push_back(new);
        if traffic.reached(&instance_id, STEP_LIMIT, until).await.ok_or(Error::Idle)? == Reached::TooLate {
            break;
        }
        if let Some(old) = serving.pop_front() {
            stop(old).await?;
        }
        deployed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(serving)
}

fn start(echo: &Echo) -> Result<(String, Process), Error> {
    let instance_id = Uuid::now_v7().to_string();
    let process = echo.spawn(&["--instance-id", &instance_id])?;
    Ok((instance_id, process))
}

/// Lets a process drain and end.
async fn stop(process: Process) -> Result<(), process::Error> {
    spawn_blocking(move || process.terminate(STEP_LIMIT)).await.expect("it does not panic, and the runtime lives on")
}
