//! Why a process ends other than in order.

use std::{error::Error, fmt};

use meshwork::cause::with_causes;

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
    /// Anything else: exit code 1.
    Run(Box<dyn Error + Send + Sync>),
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

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Flag { .. } => 2,
            Self::Run(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    /// One line, with the whole chain of causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { flag, value, problem } => write!(f, "{flag} {value}: {problem}"),
            Self::Run(error) => f.write_str(&with_causes(&**error)),
        }
    }
}
