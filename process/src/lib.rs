//! What the `main` of every binary shares: flags, logs, signals, one-line errors and exit codes. The library `meshwork` itself
//! reads no flag and no environment.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | shut down in order |
//! | 1 | ended by an error |
//! | 2 | a flag, or what it points to, cannot be used |
//! | 130, 143 | ended at once by a second SIGINT or SIGTERM |

mod failure;
mod flags;
mod host_port;
mod listener;
#[cfg(feature = "events")]
mod serve;
mod signal;
pub mod telemetry;

use std::process::ExitCode;

use clap::{Arg, ArgAction, error::ErrorKind};
use tokio_util::sync::CancellationToken;

pub use failure::Failure;
pub use flags::{InstanceArgs, LogArgs, StoreArgs, TelemetryArgs, parse_duration};
pub use host_port::HostPort;
pub use listener::Listener;
pub use meshwork::cause::with_causes;
#[cfg(feature = "events")]
pub use serve::serve;

use telemetry::TelemetryError;

/// Runs a process: reads its flags, sets up what it tells about itself, and calls `run` with a token that the first SIGINT or SIGTERM cancels. A
/// second one ends the process at once.
///
/// `-V` prints the program's version; `--version` is left to [`InstanceArgs`].
pub fn main<A>(
    telemetry: impl FnOnce(&A) -> TelemetryArgs,
    run: impl AsyncFnOnce(A, CancellationToken) -> Result<(), Failure>,
) -> ExitCode
where
    A: clap::Parser,
{
    let args = match parse::<A>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Failure::run).and_then(|runtime| {
        runtime.block_on(async {
            let _telemetry = start(&telemetry(&args), A::command().get_name()).await?;
            let shutdown = signal::shutdown().map_err(Failure::run)?;
            run(args, shutdown).await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Logs, spans and metrics of the process called `name`. What is returned is held until it ends: its last spans are sent then.
async fn start(args: &TelemetryArgs, name: &str) -> Result<impl Sized + use<>, Failure> {
    let spans = logs_and_spans(args, name)?;
    #[cfg(feature = "prometheus")]
    if let Some(address) = &args.admin_listen {
        let listener = Listener::bind("--admin-listen", address).await?;
        let admin = telemetry::Admin::install().map_err(Failure::run)?;
        tracing::info!("metrics are on http://{}/metrics", listener.address());
        // Until the process ends: its last metrics are of interest too.
        tokio::spawn(admin.serve(listener.into_inner()));
    }
    Ok(spans)
}

#[cfg(feature = "otel")]
fn logs_and_spans(args: &TelemetryArgs, name: &str) -> Result<Option<telemetry::Spans>, Failure> {
    let LogArgs { log, log_level } = &args.log;
    let Some(collector) = &args.otlp_endpoint else {
        telemetry::init(*log, log_level).map_err(|error| unusable(&args.log, error))?;
        return Ok(None);
    };
    let spans =
        telemetry::Spans::start(collector, name).map_err(|error| Failure::flag("--otlp-endpoint", collector, error))?;
    telemetry::init_with_spans(*log, log_level, &spans).map_err(|error| unusable(&args.log, error))?;
    Ok(Some(spans))
}

#[cfg(not(feature = "otel"))]
fn logs_and_spans(args: &TelemetryArgs, _: &str) -> Result<(), Failure> {
    telemetry::init(args.log.log, &args.log.log_level).map_err(|error| unusable(&args.log, error))
}

fn unusable(log: &LogArgs, error: TelemetryError) -> Failure {
    match &error {
        TelemetryError::Filter(_) => Failure::flag("--log-level", &log.log_level, error),
        TelemetryError::Twice(_) => Failure::run(error),
    }
}

/// The flags, or the code to exit with after all is said.
fn parse<A: clap::Parser>() -> Result<A, ExitCode> {
    let version = Arg::new("program-version").short('V').action(ArgAction::Version).help("Print the program's version");
    let command = A::command().disable_version_flag(true).version(env!("CARGO_PKG_VERSION")).arg(version);
    let parsed = command.try_get_matches().and_then(|matches| A::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed stdout is no error of the flags.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{}", one_line(&error.to_string()));
            ExitCode::from(2)
        }
    })
}

/// clap's error without its advice, in one line.
fn one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
