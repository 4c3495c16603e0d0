//! The customer service as a process: see `meshwork-customer --help`.

use std::process::ExitCode;

use meshwork_customer::process::Args;

fn main() -> ExitCode {
    meshwork_process::main(|args: &Args| args.telemetry.clone(), Args::serve)
}
