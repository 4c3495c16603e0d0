//! What a process reports about itself: logs on stderr, spans to a collector, metrics on an admin listener. Only `main`
//! calls this; the library `meshwork` logs and counts to whatever subscriber and recorder it finds.
//!
//! A call has a span at level `debug` but no log line: normal operation costs nothing and logs nothing.

#[cfg(feature = "prometheus")]
mod admin;
#[cfg(feature = "otel")]
mod spans;

#[cfg(feature = "prometheus")]
pub(crate) use admin::set_metrics_address;
#[cfg(feature = "prometheus")]
pub use admin::{Admin, metrics_address};
#[cfg(feature = "otel")]
pub use spans::{CollectorError, Spans};

use std::{
    fmt::Display,
    io::{self, IsTerminal as _},
    str::FromStr as _,
};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt,
    layer::{Identity, SubscriberExt as _},
    registry,
    util::SubscriberInitExt as _,
};

/// The target of lines that are said whatever is logged.
const SAID: &str = "meshwork_said";

/// The levels, as a sentence lists them that names all.
pub(crate) const LEVELS_AND: &str = "off, error, warn, info, debug and trace";

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For humans; coloured on a terminal
    #[default]
    Human,
    /// One JSON object per line
    Json,
}

/// A text that is not a valid log filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{culprit}must be off, error, warn, info, debug or trace, or a list such as info,meshwork=debug")]
pub struct InvalidFilter {
    /// Of a list, names the part that cannot be used.
    culprit: String,
}

/// Logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
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
    let filter = filter_of(filter)?.with_target(SAID, LevelFilter::INFO);
    // That a line could not be written would be told on stderr as well.
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(exported).with(lines.with_filter(filter)).try_init().map_err(TelemetryError::Twice)
}

/// Says a line on stderr whatever is logged. If log lines are JSON it is one too: what reads them can read nothing else.
pub fn say(format: LogFormat, level: Level, line: impl Display) {
    // An error may come before the log.
    match format {
        LogFormat::Json if tracing::dispatcher::has_been_set() => match level {
            Level::ERROR => tracing::error!(target: SAID, "{line}"),
            Level::WARN => tracing::warn!(target: SAID, "{line}"),
            _ => tracing::info!(target: SAID, "{line}"),
        },
        LogFormat::Human | LogFormat::Json => crate::to_stderr(line),
    }
}

/// Reads which lines are logged, as [`init`] takes it. A bare word is a level: tracing's own filter takes any other for the name of
/// a target, so that a misspelt level would silence everything.
pub(crate) fn parse_filter(text: &str) -> Result<String, InvalidFilter> {
    filter_of(text).map(|_| text.to_owned())
}

/// What is logged: errors, and as `filter` says; what it does not mention only as far as it helps. sqlx's pool logs each attempt at a server
/// that refuses connections, and what comes of it is logged where it is used; tower's balance logs each draw.
fn filter_of(filter: &str) -> Result<Targets, InvalidFilter> {
    let base = [("sqlx_core::pool", LevelFilter::OFF), ("tower", LevelFilter::INFO)];
    let mut targets = Targets::new().with_default(LevelFilter::ERROR).with_targets(base);
    for directive in directives(filter) {
        targets = match read_directive(directive) {
            Some((Some(target), level)) => targets.with_target(target, level),
            Some((None, level)) => targets.with_default(level),
            None if filter.contains(',') => {
                return Err(InvalidFilter { culprit: format!("{directive:?} is not a level: ") });
            }
            None => return Err(InvalidFilter { culprit: String::new() }),
        };
    }
    Ok(targets)
}

/// The directives of `filter` that can be read, and the others.
pub(crate) fn readable_filter(filter: &str) -> (String, Vec<String>) {
    let (readable, invalid): (Vec<_>, Vec<_>) =
        directives(filter).partition(|directive| read_directive(directive).is_some());
    (readable.join(","), invalid.into_iter().map(str::to_owned).collect())
}

fn directives(filter: &str) -> impl Iterator<Item = &str> {
    filter.split(',').map(str::trim)
}

/// What is logged from which target, or from all others; `None`: it cannot be read.
fn read_directive(directive: &str) -> Option<(Option<&str>, LevelFilter)> {
    let (target, level) = directive.rsplit_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
    // `LevelFilter` reads nothing as `error`.
    if level.is_empty() || target.is_some_and(|target| !is_target(target)) {
        return None;
    }
    Some((target, LevelFilter::from_str(level).ok()?))
}

/// Whether `text` is the path of a module, such as `meshwork::channel`. Spans and fields, which `EnvFilter` can name as well, are not.
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.' | '/'))
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
        for (filter, begin) in [
            ("foo", ""),
            ("loud", ""),
            ("info,foo=bar", r#""foo=bar" is not a level: "#),
            ("info,meshwork=loud", r#""meshwork=loud" is not a level: "#),
            ("info,my_crate", r#""my_crate" is not a level: "#),
            ("info,,debug", r#""" is not a level: "#),
            ("info=", ""),
            ("", ""),
        ] {
            let error = init(LogFormat::Json, filter).expect_err(filter).to_string();
            assert!(error.starts_with(&format!("{begin}must be off, error, warn, info, debug or trace")), "{error}");
        }
    }

    #[test]
    fn a_filter_of_levels_is_taken_and_errors_are_logged_unless_it_is_off() {
        let filter = |text| filter_of(text).expect(text).to_string();
        assert!(filter("info,meshwork=debug").contains("meshwork=debug"));
        let own = filter("meshwork=debug");
        assert!(own.contains("error") && own.contains("meshwork=debug"), "{own}");
        for level in ["off", "ERROR", "warn", " info ", "debug", "trace"] {
            let text = filter(level);
            assert!(text.contains(&level.trim().to_lowercase()), "{text}");
            assert!(level == "ERROR" || !text.split(',').any(|directive| directive == "error"), "{text}");
        }
    }
}
