//! The store opens one database from one URL, behind one small trait.
//!
//! A store runs statements ([`Sql`]) in a [`Transaction`] or on its read pool, and knows what differs between engines:
//! how rows are locked, and which errors are a [`StoreError::Conflict`] that goes away by repeating the transaction.
//! Statements are written once, in the subset that SQLite and PostgreSQL share: columns of numbers, texts and bytes,
//! `insert ... on conflict`. What the engines write differently is a typed part of the statement, never a word of its text that
//! is looked for. It refuses to be an ORM.

mod engine;
mod error;
#[cfg(feature = "sqlite")]
mod lock;
mod migrate;
mod migration;
mod notifier;
#[cfg(feature = "postgres")]
mod postgres;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;

#[cfg(test)]
pub(crate) mod fixture;

pub use engine::{Database, Store, Transaction};
pub use error::{Cause, StoreError, shown};
pub use migration::Migration;
pub use notifier::{Notifier, Topic};
#[cfg(feature = "postgres")]
pub use postgres::{InvalidPostgresUrl, PostgresUrl};
pub(crate) use sql::signed;
pub use sql::{Row, Sql, Value};
#[cfg(feature = "sqlite")]
pub use sqlite::BackupError;
pub use statement::MAX_ROWS_PER_STATEMENT;

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::sync::Arc;

/// Opens the database that `url` names; it is made if it is missing.
///
/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE` is shared by several processes. It is read as psql reads it: its further
/// parameters are libpq's (`?sslmode=verify-full&sslrootcert=FILE` for TLS with a checked certificate, `?host=/FOLDER` for a
/// socket), as are the variables (`PGPASSWORD`, ...) for what the URL leaves out; one that is not supported is refused. A
/// server that is not up yet is waited for, ten seconds. The database's encoding is UTF8, as it is in one that is made here.
///
/// `sqlite://FILE` is an embedded database of this process alone. `sqlite://FILE?synchronous=normal` may lose the last
/// transactions in a power failure (never in a crash of the process): for views that can be folded again.
///
/// # Errors
/// [`StoreError::UnsupportedUrl`], also if this program was built without the engine (features `sqlite` and `postgres`);
/// [`StoreError::InvalidUrl`], [`StoreError::Open`], [`StoreError::Unsuitable`], [`StoreError::InUse`].
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
        Some(_) => {
            let problem = "the only supported parameter is synchronous (full or normal)".to_owned();
            return Err(StoreError::InvalidUrl { url: shown(url), problem });
        }
    };
    if path.is_empty() || path.starts_with(':') {
        return Err(unsupported());
    }
    Ok((PathBuf::from(path), synchronous))
}
