//! Meshwork's benchmarks. Each measures one promise in rounds, prints a table and writes `target/bench/<name>.json`.

mod cli;
mod saga;

mod process;

mod cpu;
mod machine;
mod report;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

/// Exit code of an interrupted run, as shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    // What a mesh under test complains about belongs on the screen; what it tells besides costs nothing.
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).init();
    tokio::select! {
        code = cli::run(cli::Cli::parse()) => code,
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}
