//! One database from one URL, behind one small trait.
//!
//! A store runs statements ([`Sql`]) in a [`Transaction`] or on its read pool, and knows what differs between engines:
//! how rows are locked, and which errors are a [`StoreError::Conflict`] that goes away by repeating the transaction.
//! Statements are written once, in the subset that SQLite and PostgreSQL share: `$1` parameters, `bigint`, `text` and
//! `bytea` columns, `insert ... on conflict`. It refuses to be an ORM.

mod sql;

pub use sql::{Row, Sql, Value};

use std::sync::Arc;

use async_trait::async_trait;

/// A handle to an open database; clones share it.
pub type Database = Arc<dyn Store>;

/// What a database engine does for the write side and the read side.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Begins a write transaction. With SQLite it holds the only writer until it ends.
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError>;

    /// Reads committed rows, beside the writer.
    async fn read(&self, sql: Sql) -> Result<Vec<Row>, StoreError>;

    /// Brings the schema of `component` up to date: runs the migrations not yet recorded, in order, each in a transaction
    /// of its own. Instances may start together.
    async fn migrate(&self, component: &'static str, migrations: &[Migration]) -> Result<(), StoreError>;
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
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// One step of a schema's history. Never edited once released; add another.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i64,
    /// Statements, separated by `;`.
    pub sql: &'static str,
}

/// Why a statement or transaction failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A serialization failure, deadlock or unique violation (40001, 40P01, 23505): repeat the transaction from its reads.
    #[error("the transaction conflicts with another one")]
    Conflict(#[source] sqlx::Error),
    /// The database does not answer, or its disk is full: the same transaction may succeed later.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The statement is wrong, or the schema is not the expected one.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
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
    #[error("database URL {url:?} is not supported: use sqlite://FILE")]
    UnsupportedUrl {
        /// The URL, without its password.
        url: String,
    },
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The database file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
