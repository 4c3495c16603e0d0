//! Meshwork's benchmarks. Each measures one promise in rounds, prints a table and writes `target/bench/<name>.json`.

mod cli;
mod deploy;
mod query;
mod recover;
mod rpc;
mod saga;
mod tail;
mod tls;

mod clients;

mod echo;

mod envoy;

mod load;
mod open_loop;
mod postgres;

mod cpu;

use std::process::ExitCode;

use clap::Parser;
use meshwork_process::telemetry::{self, LogFormat};

#[tokio::main]
async fn main() -> ExitCode {
    // What a mesh under test complains about belongs on the screen; what it tells besides costs nothing.
    telemetry::init(LogFormat::default(), "warn").expect("a level is a filter, and nothing logs yet");
    cli::run(cli::Cli::parse()).await
}
