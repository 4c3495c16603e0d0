//! The order service as a process: see `meshwork-order --help`.

use std::process::ExitCode;

use meshwork_order::process::Args;

fn main() -> ExitCode {
    meshwork_process::main(|args: &Args| args.telemetry.clone(), Args::serve)
}
