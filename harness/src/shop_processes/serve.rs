//! A service in the process of a test: what [`Programs::Test`](super::Programs::Test) starts.

use std::process::ExitCode;

use clap::Parser;
use meshwork_process::{
    Failure,
    telemetry::{self, LogFormat},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs the service that this process's arguments name behind `--`, until SIGTERM; nothing, if they name none.
pub async fn serve() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != "--").skip(1);
    let Some(program) = args.next() else { return ExitCode::SUCCESS };
    telemetry::init(LogFormat::default(), "info").expect("the only one of this process");
    let shutdown = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate()).expect("a signal that may be listened to");
    let cancel = shutdown.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        cancel.cancel();
    });
    let flags = [program.clone()].into_iter().chain(args);
    let ended = match program.as_str() {
        "meshwork-registry" => serve_registry(meshwork_registry::Args::parse_from(flags), shutdown).await,
        "meshwork-customer" => meshwork_customer::process::Args::parse_from(flags).serve(shutdown).await,
        "meshwork-order" => meshwork_order::process::Args::parse_from(flags).serve(shutdown).await,
        "meshwork-query" => meshwork_query::process::Args::parse_from(flags).serve(shutdown).await,
        _ => meshwork_cli::run(meshwork_cli::args::Cli::parse_from(flags), shutdown).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_registry(args: meshwork_registry::Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let (config, listener) = args.listen().await?;
    meshwork_registry::run(config, listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
}
