//! Meshwork's benchmarks. Each measures one promise in rounds, prints a table and writes `target/bench/<name>.json`.

mod cli;
mod saga;

mod process;
#[expect(dead_code, reason = "the benchmarks that use all of it are the next to come")]
mod shop_processes;

mod cpu;
mod machine;
mod report;

use std::process::ExitCode;

use meshwork::telemetry::{self, LogFormat};

use clap::Parser;

/// Exit code of an interrupted run, as shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    // What a mesh under test complains about belongs on the screen; what it tells besides costs nothing.
    telemetry::init(LogFormat::default(), "warn").expect("a level is a filter, and nothing logs yet");
    tokio::select! {
        code = cli::run(cli::Cli::parse()) => code,
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}
