//! The process around [`meshwork_cli::run`].

use std::process::ExitCode;

use meshwork_cli::args::Cli;

fn main() -> ExitCode {
    meshwork_process::main(Cli::telemetry, meshwork_cli::run)
}
