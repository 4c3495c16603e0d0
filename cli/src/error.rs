//! How a command fails: one line on stderr, and an exit code that scripts can use.

use std::{error::Error as StdError, io, process::ExitCode};

use tonic::{Code, Status};

use crate::fleet;

/// Exit code of a check or an operation that failed.
pub const FAILED: u8 = 1;
/// Exit code of bad usage, and of a mesh that cannot start.
pub const CANNOT_START: u8 = 2;
/// Exit code of a command that a signal ended before it was done: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag or an argument is wrong; the text names it, its value, and what is accepted.
    #[error("{0}")]
    Usage(String),
    /// The process's own runtime or signals are not to be had.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// The mesh of this command could not be started.
    #[error("cannot start the mesh")]
    Start(#[source] fleet::Error),
    /// A registry list that no mesh can be made of.
    #[error("'--registry' cannot be used")]
    Registry(#[source] meshwork::MeshError),
    /// No registry answers.
    #[error("no registry answers at {registry} (--registry): {why}")]
    NoRegistry {
        /// Where it was asked for.
        registry: String,
        /// What happened instead.
        why: String,
    },
    /// Nobody ever registered this service.
    #[error("the registry knows no service '{0}': `meshwork services` lists those it knows")]
    UnknownService(String),
    /// A call failed.
    #[error("{what}: {}: {}", code_name(status.code()), status.message())]
    Call {
        /// What was to be done.
        what: &'static str,
        /// How the call ended.
        status: Box<Status>,
    },
    /// The mesh did not keep its word.
    #[error("{} of the mesh's promises {} broken: {}", .0.len(), if .0.len() == 1 { "is" } else { "are" }, .0[0])]
    Broken(Vec<String>),
    /// A signal ended the command before it was done.
    #[error("interrupted")]
    Interrupted,
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Error {
    /// The exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Runtime(_) | Self::Start(_) | Self::Registry(_) => CANNOT_START,
            Self::NoRegistry { .. }
            | Self::UnknownService(_)
            | Self::Call { .. }
            | Self::Broken(_)
            | Self::Output(_) => FAILED,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// Makes an error of a call's status; for `map_err`.
    pub(crate) fn call(what: &'static str) -> impl Fn(Status) -> Self {
        move |status| Self::Call { what, status: Box::new(status) }
    }
}

/// Says on one line of stderr what went wrong, and returns the exit code.
pub fn report(error: &Error) -> ExitCode {
    match error {
        // Who reads has had enough, as in `meshwork watch | head`.
        Error::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        _ => eprintln!("meshwork: {}", one_line(error)),
    }
    ExitCode::from(error.exit_code())
}

/// The error and its causes, outermost first, on one line.
pub(crate) fn one_line(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The code as the contract and grpcurl write it.
pub(crate) fn code_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_all_its_causes() {
        let error = Error::Runtime(io::Error::other("no threads\nleft"));
        assert_eq!(one_line(&error), "cannot start: no threads left");
        let error = Error::call("create a customer")(Status::deadline_exceeded("too slow"));
        assert_eq!(one_line(&error), "create a customer: DEADLINE_EXCEEDED: too slow");
    }

    #[test]
    fn scripts_can_tell_a_failed_operation_from_bad_usage() {
        assert_eq!(Error::Broken(vec!["one".into()]).exit_code(), 1);
        assert_eq!(Error::UnknownService("x".into()).exit_code(), 1);
        assert_eq!(Error::Usage("bad".into()).exit_code(), 2);
        assert_eq!(Error::Runtime(io::Error::other("")).exit_code(), 2);
        assert_eq!(Error::Interrupted.exit_code(), 130);
    }
}
