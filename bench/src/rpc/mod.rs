//! What a call costs: the same echo through Meshwork with everything on, its client of an earlier commit, tonic's own channels,
//! and proxies.
//!
//! Every client is its own process; all run the same program, and that of the earlier commit differs only in the
//! library. Peers alternate in slices of a second, so that what the machine does meanwhile affects all of them alike; a
//! figure is the geometric mean of the ratios of neighbouring slices. tonic's balanced channel and the earlier client
//! are measured against themselves as well: the distance of that ratio from one is the noise of all others.

mod against;
mod args;
mod callers;
mod churn;
mod error;
mod large;
mod proxy;

use std::path::Path;

use meshwork::contract::meshwork::registry::v1::Instance;
use meshwork_caller::{Load, Slice};
use meshwork_harness::{
    process,
    report::{Figures, RunOutcome},
};

pub(crate) use args::Args;
pub(crate) use error::Error;

use crate::{
    clients::{Peer, Turns},
    echo::{Echo, SERVICE},
};
use args::Part;
use callers::Callers;

/// The usual number of instances.
const ENDPOINTS: usize = 3;

const SETUP: &str = "Closed loop, 64-byte echo, unary, no deadline; each client is a process of its own and runs the same program \
    (bench/caller); clients, the registry in the bench's process, and three endpoints (one server process, Meshwork's server for \
    every peer) share the cores. Peers take turns in slices (see `--slice-ms`), each pair of neighbouring slices gives a ratio, figures \
    are geometric means of the ratios. `before` is the client of the commit in bench/BEFORE_HOUSE: the same program, dependencies and \
    profile, another library. before_vs_itself is the throughput of two such processes against each other, tonic_vs_itself that of two with tonic's balanced \
    channel. CPU is user and system time of the client's process per call. The large service has 1,000 endpoints in one more process, \
    without subsetting; cost is time per call with 1 in flight. While it churns, 25 of its endpoints a second drain, leave, and \
    join as new instances at other ports, all in turn; changes_per_s counts what joined and left, and not that \
    it drained before. Proxies run with their own processes \
    between a plain tonic channel and the same three endpoints.";

/// Measures, with the proxies' configurations under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let callers = Callers::find(args).await?;
    let echo = Echo::start().await?;
    let few = echo.spawn(&["--endpoints", &ENDPOINTS.to_string()])?;
    let instances = echo.serving(SERVICE, ENDPOINTS).await?;
    let addresses = instances.iter().map(|instance: &Instance| instance.address.clone()).collect::<Vec<_>>();

    let mut bench = Bench { args, callers: &callers, echo: &echo, found: Found::default() };
    if args.measures(Part::Before) {
        match &callers.before {
            Some(before) => bench.against_before(before).await?,
            None if args.only.is_some() => return Err(Error::NoBefore),
            None => eprintln!("NOT MEASURED: the client of \"before\", which bench/build-before has not built here"),
        }
    }
    if args.measures(Part::Tonic) {
        bench.against_tonic(&addresses).await?;
    }
    if args.measures(Part::Proxies) {
        bench.against_proxies(&addresses, scratch).await?;
    }
    if args.measures(Part::Large) {
        bench.with_many_endpoints().await?;
        bench.with_many_endpoints_that_churn().await?;
    }
    let Found { figures, turns: Turns { failures, rounds } } = bench.found;
    drop(few);
    echo.stop().await;
    Ok(RunOutcome { setup: SETUP, rounds, figures, failures })
}

struct Bench<'a> {
    args: &'a Args,
    callers: &'a Callers,
    echo: &'a Echo,
    found: Found,
}

#[derive(Default)]
struct Found {
    figures: Figures,
    turns: Turns,
}

impl Bench<'_> {
    /// The client under measure.
    fn meshwork(&self, name: &str, service: &str) -> Result<Peer, process::Error> {
        Peer::meshwork(&self.callers.now, name, self.echo, service)
    }

    /// Slices of each peer in turn.
    async fn alternate<const N: usize>(
        &mut self,
        slices: u64,
        in_flight: usize,
        peers: [&mut Peer; N],
    ) -> Result<[Vec<Slice>; N], Error> {
        let load = Load { in_flight, time: self.args.slice() };
        Ok(self.found.turns.alternate(slices, load, peers).await?)
    }
}
