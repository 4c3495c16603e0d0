//! What can go wrong with what is kept.

use std::{io, path::PathBuf};

use super::Kind;
use crate::limits::{MAX_BINDINGS_TAKEN, MAX_FILE_BYTES, grouped};

/// Why something is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// What is there is not what was to be replaced.
    #[error("the {} has changed since it was read: {}, and repeat the change", .0.one(), .0.read_again())]
    Changed(Kind),
    /// [`Kind::limit`].
    #[error("the registry is full ({} {})", grouped(.0.limit()), .0.many())]
    TooMany(Kind),
    /// [`MAX_BINDINGS_TAKEN`].
    #[error(
        "the service has taken as many gRPC services by its registrations as it may ({})",
        grouped(MAX_BINDINGS_TAKEN)
    )]
    TooManyTaken,
    /// The file would be larger than one that is read.
    #[error("the registry is full ({} MiB of {})", MAX_FILE_BYTES >> 20, .0.many())]
    TooLarge(Kind),
    /// The file cannot be written.
    #[error("the {} could not be stored and is not in effect", .0.one())]
    NotStored(Kind),
}

/// Why the file of policies, or one beside it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// The file, or its folder, cannot be read or made.
    #[error("cannot be opened: {0}")]
    Io(io::Error),
    /// It is a folder, a device or a pipe.
    #[error("is not a regular file")]
    NotAFile,
    /// A link leads in a circle, or into a folder that is not there.
    #[error("is a symbolic link to {}, which does not exist and cannot be created: {source}", target.display())]
    Link {
        /// Where it leads.
        target: PathBuf,
        /// Why there can be no file.
        source: io::Error,
    },
    /// The file is gone, and those beside it say that it was there.
    #[error("is missing, and the {} beside it say that it was there: restore it, or write {{}} to it to begin with none", .0.many())]
    Missing(Kind),
    /// The file cannot be replaced by another.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// The file is mounted as a single file.
    #[error("is mounted as a single file and cannot be replaced as a whole: mount its folder instead")]
    Mounted,
    /// The file has two entries of one name.
    #[error("has more than one {} of {name:?}: keep one", kind.one())]
    Twice {
        /// Of what.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// It has more entries than a registry.
    #[error("has more than {} {}", grouped(.0.limit()), .0.many())]
    TooMany(Kind),
    /// It is larger than all that a registry keeps can be.
    #[error("is larger than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    /// What is in the file is something else.
    #[error("is not a list of {} ({}): {}", kind.many(), told(error), kind.repair())]
    Malformed {
        /// Of what it should be one.
        kind: Kind,
        /// The parser's words.
        error: serde_json::Error,
    },
    /// An entry is not one that could have been set.
    #[error("the {} of {name:?} cannot be used: {problem}", kind.one())]
    Invalid {
        /// What it is.
        kind: Kind,
        /// Whose it is.
        name: String,
        /// The fields that are wrong.
        problem: String,
    },
    /// Another registry is using the file.
    #[error("is in use by another registry")]
    InUse,
    /// It is about a file beside the one of the policies.
    #[error("{}: {problem}", file.display())]
    Beside {
        /// Its name.
        file: PathBuf,
        /// What is wrong with it.
        problem: Box<PolicyFileError>,
    },
}

/// The parser's words, after the place.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (line, column) = (error.line(), error.column());
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(problem) => format!("line {line}, column {column}: {problem}"),
        None => text,
    }
}
