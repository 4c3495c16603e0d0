//! The errors of stores and statements, and what of a URL they may show.

/// The program's name for its changes of tables.
pub(super) const PROGRAM: &str = concat!("Meshwork ", env!("CARGO_PKG_VERSION"));

impl StoreError {
    /// Whether the error concerns the store as a whole, and not only the request.
    pub fn is_about_the_store(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::CommitUnknown(_) | Self::Replaced { .. } | Self::WentBack { .. })
    }
}

/// The error of the database engine's library.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a statement or transaction failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A serialization failure, deadlock or unique violation (40001, 40P01, 23505): repeat the transaction from its reads.
    #[error("the transaction conflicts with another one")]
    Conflict(#[source] Cause),
    /// The database does not answer, or its disk is full: the same transaction may succeed later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// The connection was lost before the commit was answered: the changes were made as a whole, or not at all.
    #[error("the answer to the commit was lost")]
    CommitUnknown(#[source] Cause),
    /// The files at the database's path are not the open ones: what is written now would be lost. Nothing is acknowledged
    /// until they are back; a commit that found out may have been made in the files that are gone. A copy put there is not them.
    #[error(
        "{path} was removed, replaced or truncated while it was open: nothing is acknowledged any more; copy the open files \
         before the process ends (docs/operations.md, \"A file that was removed\")"
    )]
    Replaced {
        /// The file.
        path: String,
    },
    /// The log in the database is not the one that this process has read there: while it was open the database was replaced by
    /// an older copy, which may have gone on since. Only a restart of the process helps.
    #[error(
        "the database was replaced by an older copy: the event that was last in partition {partition}, at position \
         {published}, is not there, and the log ends at {found}; restart this process"
    )]
    WentBack {
        /// The log's partition.
        partition: u32,
        /// Its head now.
        found: u64,
        /// The head that subscribers know.
        published: u64,
    },
    /// The database belongs to another service.
    #[error("the database belongs to the service {owner:?}: give {by:?} its own database")]
    Owned {
        /// The service that owns it.
        owner: String,
        /// The service that has opened it.
        by: String,
    },
    /// Two services have kept their data in one database, and have taken each other's events.
    #[error(
        "several services have kept their data in this database ({services}), so that its log and cursors are of no use to \
         {by:?}: docs/operations.md, \"One database for each service\", says how to part them"
    )]
    Shared {
        /// The services that have tables in it.
        services: String,
        /// The service that has opened it.
        by: String,
    },
    /// A newer program has changed the tables in a way that this one cannot work with.
    #[error(
        "its tables of {component:?} are of schema version {found}, made by {program}; this one, {PROGRAM}, knows \
         version {known}, and {oldest} is the oldest that suits"
    )]
    TooNew {
        /// The component that has the tables.
        component: String,
        /// The version in the database.
        found: i64,
        /// The program that made the change.
        program: String,
        /// The version that this program knows.
        known: i64,
        /// The oldest version that a program must know.
        oldest: i64,
    },
    /// The statement is wrong, or the schema is not the expected one.
    #[error("the database refused a statement")]
    Refused(#[source] Cause),
    /// The code between the reads and the writes panicked, which is a defect. Nothing has changed.
    #[error("a defect: the code that decides or stores has panicked")]
    Panicked,
    /// The event is too large for any subscriber: a message has 4 MiB at most.
    #[error("event {event_type} has {bytes} bytes; the limit is {limit}")]
    EventTooLarge {
        /// Its type.
        event_type: String,
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// A column does not hold what the code expects.
    #[error("column {column} is not {expected}")]
    Decode {
        /// The column's index in the row.
        column: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// The file is in use by another process: SQLite serves one process per file.
    #[error("{path} is in use by another process; several processes share a PostgreSQL database, not a SQLite file")]
    InUse {
        /// The database file.
        path: String,
    },
    /// The URL is not one of a supported database.
    #[error("database URL {url:?} is not supported: use sqlite://FILE or postgres://HOST/DATABASE")]
    UnsupportedUrl {
        /// The URL, as it may be [`shown`].
        url: String,
    },
    /// The URL is one of a supported database, but something in it is wrong or not supported.
    #[error("database URL {url:?} cannot be used: {problem}")]
    InvalidUrl {
        /// The URL, as it may be [`shown`].
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The database lacks what is relied on.
    #[error("{path} {problem}")]
    Unsuitable {
        /// The database file, or the URL without its password.
        path: String,
        /// What it has instead, and what to do.
        problem: String,
    },
    /// The database cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The database file, or the URL without its password.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A URL as it may be shown, in errors and logs: of one that is not `sqlite:`, the scheme alone. A password may stand
/// anywhere in it, also where no parser would look for one.
pub fn shown(url: &str) -> String {
    match url.split_once(':') {
        Some(("sqlite", _)) => url.to_owned(),
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            format!("{scheme}://...")
        }
        Some(_) | None => "...".to_owned(),
    }
}
