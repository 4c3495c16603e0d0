//! Why a process ends other than in order.

use std::{error::Error, fmt, process::ExitCode};

use meshwork::{cause::with_causes, server::is_fenced};
use tracing::Level;

use crate::{
    environment::Origins,
    one_line::printable,
    signal,
    telemetry::{LogFormat, say},
};

/// What exit code 2 means, in the help of every program, which adds what was not done.
pub const EXIT_CODE_2: &str =
    "an argument, flag or environment variable is invalid, or a file or address cannot be used";

/// Why a process ends other than in order.
#[derive(Debug)]
pub enum Failure {
    /// A flag cannot be used as it is: exit code 2.
    Flag {
        /// As it is typed, such as `--listen`.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, or what is accepted.
        problem: String,
    },
    /// Anything else: exit code 1; 3 if another process has taken the instance's place.
    Run(Box<dyn Error + Send + Sync>),
    /// A signal ended it before it was done: exit code 130 (SIGINT) or 143 (SIGTERM).
    Interrupted,
}

impl Failure {
    /// A flag that cannot be used as it is.
    pub fn flag(flag: &'static str, value: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Flag { flag, value: value.to_string(), problem: problem.to_string() }
    }

    /// Any other error.
    pub fn run(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Run(error.into())
    }

    /// Says it on stderr in one line, and returns the code to exit with. A value of the environment is named by its variable.
    pub(super) fn tell(&self, origins: &Origins, format: LogFormat) -> ExitCode {
        say(format, Level::ERROR, format_args!("error: {}", printable(&self.told(origins))));
        ExitCode::from(self.exit_code())
    }

    fn told(&self, origins: &Origins) -> String {
        match self {
            Self::Flag { flag, value, problem } => match origins.get(*flag) {
                Some(variable) => format!("{variable} (for {flag}) {value}: {problem}"),
                None => self.to_string(),
            },
            Self::Run(_) | Self::Interrupted => self.to_string(),
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Flag { .. } => 2,
            Self::Run(error) if is_fenced(&**error) => 3,
            Self::Run(_) => 1,
            Self::Interrupted => signal::exit_code(),
        }
    }
}

impl fmt::Display for Failure {
    /// One line, with the whole chain of causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { flag, value, problem } => write!(f, "{flag} {value}: {problem}"),
            Self::Run(error) => f.write_str(&with_causes(&**error)),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use meshwork::server::{self, AnnounceError};

    use super::*;

    #[test]
    fn a_process_that_another_has_replaced_ends_with_a_code_of_its_own() {
        let fenced = || AnnounceError::Fenced { service: "order".into(), instance_id: "a".into() };
        assert_eq!(Failure::run(server::Error::from(fenced())).exit_code(), 3);
        assert_eq!(Failure::run(fenced()).exit_code(), 3);
        assert_eq!(Failure::run(std::io::Error::other("the disk is full")).exit_code(), 1);
    }

    #[test]
    fn a_value_of_the_environment_is_named_by_its_variable() {
        let failure = Failure::flag("--listen", "127.0.0.1:1", "the port is in use");
        assert_eq!(failure.told(&Origins::new()), "--listen 127.0.0.1:1: the port is in use");
        let origins = Origins::from([("--listen".to_owned(), "MESHWORK_LISTEN".to_owned())]);
        assert_eq!(failure.told(&origins), "MESHWORK_LISTEN (for --listen) 127.0.0.1:1: the port is in use");
    }
}
