//! The process around [`meshwork_cli::run`]: arguments in, exit code out.

use std::{env, process::ExitCode};

use meshwork_cli::{args, error};

fn main() -> ExitCode {
    let command = match args::parse(env::args_os()) {
        Ok(command) => command,
        Err(end) => return end.report(),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => return error::report(&error::Error::Runtime(source)),
    };
    let result = runtime.block_on(meshwork_cli::run(command));
    // Whatever still runs after a second signal is not waited for.
    runtime.shutdown_background();
    result.map_or_else(|error| error::report(&error), |()| ExitCode::SUCCESS)
}
