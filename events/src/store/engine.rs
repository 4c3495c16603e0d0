//! The traits that a database engine implements: a store, and a transaction on it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    error::StoreError,
    migration::Migration,
    notifier::Notifier,
    sql::{Row, Sql},
};

/// A handle to an open database; clones share it.
pub type Database = Arc<dyn Store>;

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

    /// The place of the database, which distinguishes two copies with the same contents. Empty: unknown.
    async fn place(&self) -> Result<String, StoreError>;

    /// Notifies the other processes on this database; `None` where there cannot be any.
    fn notifier(&self) -> Option<&Notifier> {
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
