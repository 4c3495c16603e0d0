//! One database from one URL, behind one small trait.
//!
//! A store runs statements ([`Sql`]) in a [`Transaction`] or on its read pool, and knows what differs between engines:
//! how rows are locked, and which errors are a [`StoreError::Conflict`] that goes away by repeating the transaction.
//! Statements are written once, in the subset that SQLite and PostgreSQL share: `bigint`, `text` and `bytea` columns,
//! `insert ... on conflict`. It refuses to be an ORM.

#[cfg(feature = "sqlite")]
mod lock;
mod migration;
mod peers;
#[cfg(feature = "postgres")]
mod postgres;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(feature = "sqlite")]
use lock::DatabaseLock;
pub use migration::Migration;
use migration::PROGRAM;
pub use peers::{Peers, Topic};
pub(crate) use sql::signed;
pub use sql::{Row, Sql, Value};
#[cfg(feature = "sqlite")]
pub use sqlite::BackupError;
pub use statement::MAX_ROWS_PER_STATEMENT;

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

/// A handle to an open database; clones share it.
pub type Database = Arc<dyn Store>;

/// Opens the database that `url` names; it is made if it is missing.
///
/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE` is shared by several processes. Its further parameters are libpq's
/// (`?sslmode=verify-full&sslrootcert=FILE` for TLS with a checked certificate), as are the variables (`PGPASSWORD`, ...)
/// for what the URL leaves out. A server that is not up yet is waited for, ten seconds.
///
/// `sqlite://FILE` is an embedded database of this process alone. `sqlite://FILE?synchronous=normal` may lose the last
/// transactions in a power failure (never in a crash of the process): for views that can be folded again.
///
/// # Errors
/// [`StoreError::UnsupportedUrl`], also if this program was built without the engine (features `sqlite` and `postgres`);
/// [`StoreError::Open`], [`StoreError::InUse`].
pub async fn open(url: &str) -> Result<Database, StoreError> {
    match url.split_once(':') {
        #[cfg(feature = "postgres")]
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
            Ok(Arc::new(postgres::Postgres::open(url).await?))
        }
        #[cfg(feature = "sqlite")]
        Some(("sqlite", _)) => {
            let (path, synchronous) = sqlite_file(url)?;
            Ok(Arc::new(sqlite::Sqlite::open(path, synchronous).await?))
        }
        _ => Err(unsupported(url)),
    }
}

/// Copies a SQLite database, as it is at one moment, into the new file `target`; the database may be in use. A copy of its file
/// alone would lack what is in its log.
///
/// # Errors
/// [`BackupError`]; then there is nothing at `target` that was not there before.
#[cfg(feature = "sqlite")]
pub async fn backup(url: &str, target: PathBuf) -> Result<(), BackupError> {
    let (path, _) = sqlite_file(url)?;
    let copy = move || sqlite::backup(&path, &target);
    tokio::task::spawn_blocking(copy).await.map_err(|error| StoreError::Unavailable(error.into()))?
}

fn unsupported(url: &str) -> StoreError {
    StoreError::UnsupportedUrl { url: shown(url) }
}

#[cfg(feature = "sqlite")]
fn sqlite_file(url: &str) -> Result<(PathBuf, sqlite::Synchronous), StoreError> {
    let unsupported = || unsupported(url);
    let rest = url.strip_prefix("sqlite:").ok_or_else(unsupported)?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, synchronous) = match rest.split_once('?') {
        None => (rest, sqlite::Synchronous::Full),
        Some((path, "synchronous=full")) => (path, sqlite::Synchronous::Full),
        Some((path, "synchronous=normal")) => (path, sqlite::Synchronous::Normal),
        Some(_) => return Err(unsupported()),
    };
    if path.is_empty() || path.starts_with(':') {
        return Err(unsupported());
    }
    Ok((PathBuf::from(path), synchronous))
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

/// What a database engine does for the write side and the read side.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Begins a write transaction. With SQLite it holds the only writer until it ends.
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError>;

    /// Reads committed rows, beside the writer.
    async fn read(&self, sql: Sql) -> Result<Vec<Row>, StoreError>;

    /// Brings the schema of `component` up to date: runs the migrations not yet recorded, in order, in one
    /// transaction. Instances may start together.
    async fn migrate(&self, component: &'static str, migrations: &[Migration]) -> Result<(), StoreError>;

    /// Whether the database answers, can be written, and is the one that was opened.
    async fn check(&self) -> Result<(), StoreError>;

    /// Where the database is, so that two copies of one, which have the same contents, are told apart. Empty: not known.
    async fn place(&self) -> Result<String, StoreError>;

    /// The other processes on this database; `None` where there cannot be any.
    fn peers(&self) -> Option<&Peers> {
        None
    }
}

/// A transaction; dropped without [`commit`](Transaction::commit) it is rolled back.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement and returns the number of rows it changed.
    async fn execute(&mut self, sql: Sql) -> Result<u64, StoreError>;

    /// Runs a query.
    async fn fetch(&mut self, sql: Sql) -> Result<Vec<Row>, StoreError>;

    /// What to append to a `select` whose rows will be changed: `" for update"`, or nothing where the writer is alone.
    fn for_update(&self) -> &'static str;

    /// Makes the changes durable.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`] if the answer was lost; with any other error nothing has changed.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

impl StoreError {
    /// Whether it is about the store as a whole, and not about what was asked of it.
    pub fn is_about_the_store(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::CommitUnknown(_) | Self::Replaced { .. } | Self::WentBack { .. })
    }
}

/// What the database engine's library said.
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
         before the process ends (README, \"A file that was removed\")"
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
    /// The database is another service's.
    #[error("the database belongs to the service {owner:?}: give {by:?} a database of its own")]
    Owned {
        /// Whose it is.
        owner: String,
        /// Who has opened it.
        by: String,
    },
    /// Two services have kept their data in one database, and have taken each other's events.
    #[error(
        "several services have kept their data in this database ({services}), so that its log and cursors are of no use to \
         {by:?}: README, \"One database for each service\", says how to part them"
    )]
    Shared {
        /// Who has tables in it.
        services: String,
        /// Who has opened it.
        by: String,
    },
    /// A newer program has changed the tables in a way that this one cannot work with.
    #[error(
        "its tables of {component:?} are of schema version {found}, made by {program}; this one, {PROGRAM}, knows \
         version {known}, and {oldest} is the oldest that suits"
    )]
    TooNew {
        /// Whose tables.
        component: String,
        /// The version in the database.
        found: i64,
        /// Who made it so.
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
    /// An event that no subscriber could be sent: a message has 4 MiB at most.
    #[error("an event {event_type} has {bytes} bytes, of which it may have {limit}")]
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
    /// The database cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The database file, or the URL without its password.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
