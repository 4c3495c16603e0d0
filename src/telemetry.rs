//! Logs of a process: for people on a terminal, or JSON for machines. Only `main` calls this; the library itself logs to
//! whatever subscriber it finds.
//!
//! A call has a span at level `debug` and no line of its own: what is normal costs nothing and says nothing.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

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
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(TelemetryError::Filter)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
    .map_err(TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_and_says_what_is_accepted() {
        let error = init(LogFormat::Json, "info,meshwork=loud").expect_err("loud is no level");
        assert!(matches!(error, TelemetryError::Filter(_)) && error.to_string().contains("debug"), "{error}");
    }
}
