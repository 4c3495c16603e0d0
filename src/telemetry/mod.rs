//! What a process tells about itself: logs on stderr, spans to a collector, metrics on an admin listener. Only `main` calls
//! this; the library itself logs and counts to whatever subscriber and recorder it finds.
//!
//! A call has a span at level `debug` and no line of its own: what is normal costs nothing and says nothing.

mod admin;
mod spans;

pub use admin::Admin;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use spans::Spans;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Logging or the export of spans could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("must be a level (error, warn, info, debug, trace), or a list such as info,meshwork=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The collector's address is none.
    #[error("must be the URL of an OTLP collector (gRPC), such as http://127.0.0.1:4317")]
    Collector(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Something in this process logs already.
    #[error("logging was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Telemetry of this process. Dropped, it sends the spans that have not been sent yet.
#[derive(Debug)]
pub struct Telemetry {
    _spans: Option<Spans>,
}

/// Logs to stderr from now on. `filter` is a level, or a list of `target=level` as in `info,meshwork=debug`.
///
/// With `collector`, the URL of an OTLP collector that takes gRPC, the spans of calls and consumed events are sent there, as
/// those of `service`, unless the environment names the process otherwise; within a Tokio runtime. The standard variables (`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_SERVICE_NAME`, ...) are obeyed.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(
    format: LogFormat,
    filter: &str,
    collector: Option<&str>,
    service: &str,
) -> Result<Telemetry, TelemetryError> {
    // The pool of a server that refuses connections logs each attempt; what comes of it is logged where it is used.
    let quiet = "sqlx_core::pool=off".parse().expect("a target and a level");
    let filter = EnvFilter::try_new(filter).map_err(TelemetryError::Filter)?.add_directive(quiet);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = collector.map(|url| Spans::start(url, service)).transpose().map_err(TelemetryError::Collector)?;
    let exported = spans.as_ref().map(Spans::layer);
    registry().with(exported).with(lines.with_filter(filter)).try_init().map_err(TelemetryError::Twice)?;
    Ok(Telemetry { _spans: spans })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_and_says_what_is_accepted() {
        let error = init(LogFormat::Json, "info,meshwork=loud", None, "test").expect_err("loud is no level");
        assert!(matches!(error, TelemetryError::Filter(_)) && error.to_string().contains("debug"), "{error}");
    }
}
