//! The shared store: a PostgreSQL database of several processes.
//!
//! It assumes that any connection may end at any time, and any process stand still in the middle of a transaction: every
//! wait is bounded, on both sides; a transaction that stands still is ended by the server, and its locks with it; and
//! a connection that turns out to be dead is replaced before anything was lost on it. What cannot be repaired here is the
//! answer to a commit that never came: that is [`StoreError::CommitUnknown`].
//!
//! Connections of one process: [`MAX_WRITERS`] + [`MAX_READERS`] + 2 for wake-ups, opened as they are needed.

mod answer;
mod connect;
mod error;
mod render;
mod wake;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::JoinHandle;

use self::{
    answer::{ANSWER_TIMEOUT, answered},
    error::{classify, classify_commit, is_lost, is_stale},
};
use super::{Migration, Peers, Row, Sql, Store, StoreError, Transaction, migration};

/// Write transactions at once. A service has one writer in each process; the rest is for what happens beside it.
const MAX_WRITERS: u32 = 4;
/// Reads at once: short, and more would only queue up in the server, whose default is 100 connections for everybody.
const MAX_READERS: u32 = 6;
/// How long a transaction or read waits for a connection: a restarted server needs a second or two to recover.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that rested for longer is tried before it is used; one under load has just proved itself.
const MAX_UNTESTED_REST: Duration = Duration::from_secs(1);
/// An index over a large table takes its time, and so does waiting for the instance that makes it.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Serializes migrations of a database: "meshwork" in ASCII.
const MIGRATION_LOCK: i64 = 0x6d65_7368_776f_726b;

pub(super) struct Postgres {
    writers: PgPool,
    readers: PgPool,
    peers: Arc<Peers>,
    wake: JoinHandle<()>,
}

impl Postgres {
    /// Opens the database of `url`, and makes it if it is missing.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = connect::open(url).await?;
        let peers = Arc::new(Peers::default());
        let wake = tokio::spawn(wake::run(pool(wake::MAX_CONNECTIONS, options.clone()), peers.clone()));
        Ok(Self { writers: pool(MAX_WRITERS, options.clone()), readers: pool(MAX_READERS, options), peers, wake })
    }

    async fn transaction(&self, answer_timeout: Duration) -> Result<PostgresTransaction, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // Stated, because the server's default may be another: the locks of a batch need each select to see what was
            // committed while it waited.
            match answered(ANSWER_TIMEOUT, self.writers.begin_with("begin isolation level read committed")).await {
                Ok(tx) => return Ok(PostgresTransaction { tx, answer_timeout, failed: false }),
                Err(error) if is_lost(&error) && tries <= MAX_WRITERS => {}
                Err(error) => return Err(classify(error)),
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.wake.abort();
    }
}

fn pool(max_connections: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, rested| {
            Box::pin(async move {
                Ok(rested.idle_for < MAX_UNTESTED_REST || answered(ANSWER_TIMEOUT, connection.ping()).await.is_ok())
            })
        })
        // The pool's own test on return has no bound: a silent server would keep the connection's place for ever.
        .after_release(|connection, _| {
            Box::pin(async move { answered(ANSWER_TIMEOUT, connection.ping()).await.map(|()| true) })
        })
        .connect_lazy_with(options)
}

#[async_trait]
impl Store for Postgres {
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError> {
        Ok(Box::new(self.transaction(ANSWER_TIMEOUT).await?))
    }

    async fn read(&self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut connection = self.readers.acquire().await.map_err(classify)?;
            match answered(ANSWER_TIMEOUT, render::query(sql.clone()).fetch_all(&mut *connection)).await {
                Ok(rows) => return render::rows(&rows),
                // Its connection may be one of a server that has restarted, and so may all others.
                Err(error) if is_lost(&error) => {
                    connection.close_on_drop();
                    if tries > MAX_READERS {
                        return Err(classify(error));
                    }
                }
                Err(error) => return Err(classify(error)),
            }
        }
    }

    async fn migrate(&self, component: &'static str, migrations: &[Migration]) -> Result<(), StoreError> {
        let mut tx = self.transaction(MIGRATION_TIMEOUT).await?;
        // Instances that start together wait for the first.
        tx.execute(Sql::new("set local lock_timeout = 0")).await?;
        tx.execute(Sql::new("set local statement_timeout = 0")).await?;
        tx.execute(Sql::new("select pg_advisory_xact_lock(").arg(MIGRATION_LOCK).push(")")).await?;
        migration::run(Box::new(tx), component, migrations, str::to_owned).await
    }

    fn peers(&self) -> Option<&Peers> {
        Some(&self.peers)
    }
}

struct PostgresTransaction {
    /// Dropped, it rolls back as soon as its connection is back in the pool.
    tx: sqlx::Transaction<'static, sqlx::Postgres>,
    /// A statement failed: whatever follows, the server would answer COMMIT with a rollback, and call it a success.
    failed: bool,
    answer_timeout: Duration,
}

impl PostgresTransaction {
    async fn fail(&mut self, error: sqlx::Error) -> StoreError {
        self.failed = true;
        if is_stale(&error) {
            // Prepared before another instance changed the schema. The connection goes back to the pool without them.
            let _ = answered(self.answer_timeout, self.tx.clear_cached_statements()).await;
        }
        classify(error)
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn execute(&mut self, sql: Sql) -> Result<u64, StoreError> {
        match answered(self.answer_timeout, self.tx.execute(render::query(sql))).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn fetch(&mut self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        match answered(self.answer_timeout, self.tx.fetch_all(render::query(sql))).await {
            Ok(rows) => render::rows(&rows),
            Err(error) => Err(self.fail(error).await),
        }
    }

    fn for_update(&self) -> &'static str {
        " for update"
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Refused("commit after a statement that failed".into()));
        }
        answered(self.answer_timeout, self.tx.commit()).await.map_err(classify_commit)
    }
}

#[cfg(test)]
mod tests;
