//! What a process tells about itself: logs on stderr, spans to a collector, metrics on an admin listener. Only `main` calls
//! this; the library `meshwork` logs and counts to whatever subscriber and recorder it finds.
//!
//! A call has a span at level `debug` and no line of its own: what is normal costs nothing and says nothing.

#[cfg(feature = "prometheus")]
mod admin;
#[cfg(feature = "otel")]
mod spans;

#[cfg(feature = "prometheus")]
pub use admin::Admin;
#[cfg(feature = "otel")]
pub use spans::{CollectorError, Spans};

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt,
    layer::{Identity, SubscriberExt as _},
    registry,
    util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("must be a level (error, warn, info, debug, trace), or a list such as info,meshwork=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logging was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Logs to stderr from now on. `filter` is a level, or a list of `target=level` as in `info,meshwork=debug`.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    subscribe(format, filter, Identity::new())
}

/// Logs to stderr from now on, and tells `spans` of the spans of calls and consumed events.
///
/// # Errors
/// [`TelemetryError`].
#[cfg(feature = "otel")]
pub fn init_with_spans(format: LogFormat, filter: &str, spans: &Spans) -> Result<(), TelemetryError> {
    subscribe(format, filter, spans.layer())
}

fn subscribe(
    format: LogFormat,
    filter: &str,
    exported: impl Layer<Registry> + Send + Sync,
) -> Result<(), TelemetryError> {
    let filter = filter_of(filter)?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(exported).with(lines.with_filter(filter)).try_init().map_err(TelemetryError::Twice)
}

/// What is logged: as `filter` says, and what it does not mention only as far as it helps. sqlx's pool logs each attempt at a server
/// that refuses connections, and what comes of it is logged where it is used; tower's balance logs each draw.
fn filter_of(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(format!("sqlx_core::pool=off,tower=info,{filter}")).map_err(TelemetryError::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_logs_too_much_is_quiet_unless_it_is_asked_for() {
        let quiet = filter_of("debug").expect("a filter").to_string();
        assert!(quiet.contains("tower=info") && quiet.contains("sqlx_core::pool=off"), "{quiet}");
        let asked = filter_of("debug,tower=debug").expect("a filter").to_string();
        assert!(asked.contains("tower=debug") && !asked.contains("tower=info"), "{asked}");
    }

    #[test]
    fn a_filter_that_is_none_is_refused_and_says_what_is_accepted() {
        let error = init(LogFormat::Json, "info,meshwork=loud").expect_err("loud is no level");
        assert!(matches!(error, TelemetryError::Filter(_)) && error.to_string().contains("debug"), "{error}");
    }
}
