//! The query service as a process: see `meshwork-query --help`.

use std::process::ExitCode;

use meshwork_query::process::Args;

fn main() -> ExitCode {
    meshwork_process::main(|args: &Args| args.telemetry.clone(), Args::serve)
}
