//! What the `main` of every binary shares: flags, logs, signals, one-line errors and exit codes. The library `meshwork` itself
//! reads no flag and no environment.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | stopped by SIGINT or SIGTERM |
//! | 1 | ended by an error |
//! | 2 | an argument, flag or environment variable is invalid, or a file or address cannot be used; nothing was served |
//! | 3 | another process has registered with this instance's id, and serves in its place |
//! | 130, 143 | stopped by SIGINT or SIGTERM before it was done; a process that serves: at once, by a second one |

mod command_line;
mod duration;
mod environment;
mod failure;
mod flags;
mod host_port;
mod listener;
mod number;
mod one_line;
mod patience;
#[cfg(feature = "events")]
mod serve;
mod signal;
pub mod telemetry;
mod tls;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

pub use duration::{InvalidDuration, duration_in, parse_duration};
pub use failure::{EXIT_CODE_2, Failure};
pub use flags::{AuthorizationArg, InstanceArgs, LogArgs, StoreArgs, TelemetryArgs};
pub use host_port::HostPort;
pub use listener::Listener;
pub use meshwork::cause::with_causes;
pub use number::{InvalidNumber, number_in};
pub use one_line::to_stderr;
pub use patience::say_if_slow;
#[cfg(feature = "events")]
pub use serve::serve;
pub use signal::STOPPING;
pub use tls::{Expected, InsecureArgs, TlsArgs, TlsModeArg};

use command_line::{Parsed, is_server, parse};
use telemetry::TelemetryError;

/// Runs a process: reads its flags, sets up what it tells about itself, and calls `run` with a token that the first SIGINT or SIGTERM cancels. A
/// second one ends the process at once.
///
/// Each flag may have an environment twin, clap's `env`: an empty variable is unset, blanks and newlines around its value are
/// dropped, and one that cannot be used is named. `-V` prints `A`'s own version; `--version` does too, unless `A` has
/// [`InstanceArgs`], where it sets the instance's version. So say `#[command(version, disable_version_flag = true)]` of `A`; without it there
/// is no `-V`.
pub fn main<A>(
    telemetry: impl FnOnce(&A) -> TelemetryArgs,
    run: impl AsyncFnOnce(A, CancellationToken) -> Result<(), Failure>,
) -> ExitCode
where
    A: clap::Parser,
{
    let Parsed { matches: args, origins, .. } = match parse::<A>() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let told = telemetry(&args);
    let format = told.log.log;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::run(error).tell(&origins, format),
    };
    let result = runtime.block_on(async {
        let command = A::command();
        let is_server = is_server(&command);
        let say = move || {
            if is_server {
                tracing::info!("{STOPPING}");
            }
        };
        let shutdown = signal::shutdown(say).map_err(Failure::run)?;
        let starting = start(&told, command.get_name());
        let Some(_telemetry) = shutdown.run_until_cancelled(starting).await.transpose()? else { return Ok(()) };
        let ended = run(args, shutdown.clone()).await;
        if is_server && ended.is_ok() && shutdown.is_cancelled() {
            tracing::info!("stopped");
        }
        ended
    });
    // A look-up of a name that was given up may go on in a thread; nothing waits for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(&origins, format),
    }
}

/// Logs, spans and metrics of the process called `name`. What is returned is held until it ends: its last spans are sent then.
async fn start(args: &TelemetryArgs, name: &str) -> Result<impl Sized + use<>, Failure> {
    let spans = logs_and_spans(args, name)?;
    #[cfg(feature = "prometheus")]
    if let Some(address) = &args.admin_listen {
        let listener = Listener::bind("--admin-listen", address).await?;
        let admin = telemetry::Admin::install().map_err(Failure::run)?;
        telemetry::set_metrics_address(listener.address());
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
    // Without a password before the host.
    let shown = collector.rsplit('@').next().unwrap_or_default();
    let spans =
        telemetry::Spans::start(collector, name).map_err(|error| Failure::flag("--otlp-endpoint", shown, error))?;
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

#[cfg(test)]
mod tests;
