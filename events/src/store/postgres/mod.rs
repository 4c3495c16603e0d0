//! The shared store is a PostgreSQL database of several processes.
//!
//! It assumes that any connection may end at any time, and any process stand still in the middle of a transaction: every
//! wait is bounded, on both sides; a transaction that stands still is ended by the server, and its locks with it; and
//! a connection that turns out to be dead is replaced before anything was lost on it. What cannot be repaired here is the
//! answer to a commit that never came: that is [`StoreError::CommitUnknown`].
//!
//! One process has at most [`MAX_WRITERS`] + [`MAX_READERS`] connections and 2 for notifications, opened as they are needed.

mod answer;
mod connect;
mod error;
mod render;
mod url;
mod wake;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::{
    Connection as _, Executor as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::Notify, task::JoinHandle};

pub use self::url::{InvalidPostgresUrl, PostgresUrl};
use self::{
    answer::{ANSWER_TIMEOUT, answered},
    connect::Target,
    error::{classify, classify_commit, is_lost, is_read_only, is_stale},
};
use super::{Migration, Notifier, Row, Sql, Store, StoreError, Transaction, migrate};

/// Write transactions at once. A service has one writer in each process; the rest is for what happens beside it.
const MAX_WRITERS: u32 = 4;
/// Reads at once: short, and more would only queue up in the server, whose default is 100 connections for everybody.
const MAX_READERS: u32 = 6;
/// How long a transaction or read waits for a connection: a restarted server needs a second or two to recover.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that rested for longer is tried before it is used; one under load has just proved itself.
const MAX_UNTESTED_REST: Duration = Duration::from_secs(1);
/// Whatever a connection has come to be (to another server than the name leads to now, say), it is not for long.
const MAX_CONNECTION_LIFE: Duration = Duration::from_secs(2 * 60);
/// Of a standby, or of a primary that was demoted.
const READ_ONLY: &str = "the server's sessions are read-only";
/// An index over a large table takes its time, and so does waiting for the instance that makes it.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Serializes migrations of a database: "meshwork" in ASCII.
const MIGRATION_LOCK: i64 = 0x6d65_7368_776f_726b;

pub(super) struct Postgres {
    writers: PgPool,
    readers: PgPool,
    demoted: Arc<Demoted>,
    unreached: Arc<Notify>,
    notifier: Arc<Notifier>,
    background: JoinHandle<()>,
}

impl Postgres {
    /// Opens the database of `url`, and makes it if it is missing.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let target = Arc::new(connect::open(url).await?);
        let notifier = Arc::new(Notifier::default());
        let demoted = Arc::new(Demoted::default());
        let unreached = Arc::new(Notify::new());
        let options = target.route().await.unwrap_or_else(|_| target.options.clone());
        let pool = |max| pool(max, &target, options.clone(), &demoted);
        let (writers, readers, wakers) = (pool(MAX_WRITERS), pool(MAX_READERS), pool(wake::MAX_CONNECTIONS));
        let routed = reroute(target.clone(), unreached.clone(), [writers.clone(), readers.clone(), wakers.clone()]);
        let woken = wake::run(wakers, notifier.clone());
        let background = tokio::spawn(async { tokio::join!(routed, woken).1 });
        Ok(Self { writers, readers, demoted, unreached, notifier, background })
    }

    /// Why there was no session.
    fn no_session(&self, error: sqlx::Error) -> StoreError {
        self.unreached.notify_one();
        self.demoted.explain(error)
    }

    async fn transaction(&self, answer_timeout: Duration) -> Result<PostgresTransaction, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // Stated, because the server's default may be another: the locks of a batch need each select to see what was
            // committed while it waited.
            match answered(ANSWER_TIMEOUT, self.writers.begin_with("begin isolation level read committed")).await {
                Ok(tx) => {
                    let demoted = self.demoted.clone();
                    return Ok(PostgresTransaction { tx, answer_timeout, failed: false, demoted });
                }
                Err(error) if is_lost(&error) && tries <= MAX_WRITERS => self.unreached.notify_one(),
                Err(error) => return Err(self.no_session(error)),
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.background.abort();
    }
}

/// A pool of which every connection was writable when it was made, and is younger than the last that turned out not to be.
fn pool(max_connections: u32, target: &Arc<Target>, options: PgConnectOptions, demoted: &Arc<Demoted>) -> PgPool {
    let (connecting, waiting) = (demoted.clone(), demoted.clone());
    let acquire_timeout = ACQUIRE_TIMEOUT.max(target.connect_timeout);
    let target = target.clone();
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .max_lifetime(MAX_CONNECTION_LIFE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let (target, demoted) = (target.clone(), connecting.clone());
            Box::pin(async move {
                answered(ANSWER_TIMEOUT, target.set_up(connection)).await?;
                answered(ANSWER_TIMEOUT, expect_writable(connection, &demoted)).await
            })
        })
        .before_acquire(move |connection, rested| {
            let outdated = waiting.has_seen(rested.age);
            Box::pin(async move {
                let rested = rested.idle_for >= MAX_UNTESTED_REST;
                Ok(!outdated && (!rested || answered(ANSWER_TIMEOUT, connection.ping()).await.is_ok()))
            })
        })
        // The pool's own test on return has no bound: a silent server would keep the connection's place for ever.
        .after_release(|connection, _| {
            Box::pin(async move { answered(ANSWER_TIMEOUT, connection.ping()).await.map(|()| true) })
        })
        .connect_lazy_with(options)
}

/// Leads the pools to an address that answers, whenever a session was lost or could not be made.
async fn reroute(target: Arc<Target>, unreached: Arc<Notify>, pools: [PgPool; 3]) {
    loop {
        unreached.notified().await;
        target.name_failed.store(true, Ordering::Relaxed);
        match target.route().await {
            Ok(options) => pools.iter().for_each(|pool| pool.set_connect_options(options.clone())),
            Err(error) => tracing::debug!(%error, "no address of the database's host answers"),
        }
    }
}

/// A session of a standby, or of a primary that was demoted, is of no use, also for reads: they would be of a past that goes
/// by. The caller tries again, by the pool's own backoff of at most a second.
async fn expect_writable(connection: &mut PgConnection, demoted: &Demoted) -> Result<(), sqlx::Error> {
    let row = connection.fetch_one("show transaction_read_only").await?;
    if row.try_get::<&str, _>(0)? == "off" {
        return Ok(());
    }
    demoted.see();
    Err(sqlx::Error::Io(io::Error::other(READ_ONLY)))
}

/// When a session turned out to be read-only: then a server was demoted, and sessions of before that may be of the same one
/// (vertx-sql-client #981).
#[derive(Default)]
struct Demoted(Mutex<Option<Instant>>);

impl Demoted {
    fn see(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Why there was no connection: the last attempt's error, where the pool reports only a timeout.
    fn explain(&self, error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::PoolTimedOut if self.has_seen(ACQUIRE_TIMEOUT) => StoreError::Unavailable(READ_ONLY.into()),
            error => classify(error),
        }
    }

    /// Whether a connection of this age was there then.
    fn has_seen(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|seen| seen.elapsed() <= age)
    }
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
            let mut connection = self.readers.acquire().await.map_err(|error| self.no_session(error))?;
            match answered(ANSWER_TIMEOUT, render::query(sql.clone()).fetch_all(&mut *connection)).await {
                Ok(rows) => return render::rows(&rows),
                // Its connection may be one of a server that has restarted, and so may all others.
                Err(error) if is_lost(&error) => {
                    if is_read_only(&error) {
                        self.demoted.see();
                    }
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
        let select = "select (to_regclass('schema_version') is not null and to_regclass('schema_suits') is not null)::int::bigint";
        let has_tables = tx.fetch(Sql::new(select)).await?.first().map_or(Ok(0), |row| row.int(0))? == 1;
        migrate::run(Box::new(tx), has_tables, component, migrations, "bytea").await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut tx = self.transaction(ANSWER_TIMEOUT).await?;
        let rows = tx.fetch(Sql::new("show transaction_read_only")).await?;
        match rows.first().map(|row| row.text(0)).transpose()? {
            Some("off") => Ok(()),
            _ => {
                self.demoted.see();
                Err(StoreError::Unavailable(READ_ONLY.into()))
            }
        }
    }

    /// The same before and after a failover, which keeps the server's identity.
    async fn place(&self) -> Result<String, StoreError> {
        let select = "select 'postgres:' || (select system_identifier from pg_control_system()) || '/' || oid \
                      from pg_database where datname = current_database()";
        match self.read(Sql::new(select)).await {
            Ok(rows) => rows.first().map_or(Ok(String::new()), |row| row.text(0).map(str::to_owned)),
            // A provider may keep the function to itself.
            Err(StoreError::Refused(_)) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }
}

struct PostgresTransaction {
    /// Dropped, it rolls back as soon as its connection is back in the pool.
    tx: sqlx::Transaction<'static, sqlx::Postgres>,
    /// A statement failed: the server would answer COMMIT with a rollback, and report success.
    failed: bool,
    answer_timeout: Duration,
    demoted: Arc<Demoted>,
}

impl PostgresTransaction {
    async fn fail(&mut self, error: sqlx::Error) -> StoreError {
        self.failed = true;
        if is_read_only(&error) {
            self.demoted.see();
        }
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
