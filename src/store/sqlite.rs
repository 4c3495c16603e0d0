//! The embedded store: a SQLite file of one process.
//!
//! One writer connection with `begin immediate` (so that nothing ever waits for a lock in the middle of a transaction),
//! a pool of readers beside it, and checkpoints by a task of their own, off the writer's path. A lock file keeps a
//! second process out: SQLite's own locks would let it in and fail later, at random.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, Row as _, SqliteConnection, SqlitePool, TypeInfo as _,
    ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
};

use super::{Migration, Row, Sql, Store, StoreError, Transaction, Value, migration};

/// Readers beside the writer. Each is a thread; reads are short.
const MAX_READERS: u32 = 4;
/// How often the log is copied back into the file.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Above this the writer waits once for a whole checkpoint, so that a log under constant load does not grow for ever.
const MAX_LOG_BYTES: u64 = 64 << 20;
/// Only a backup tool or a person with `sqlite3` can hold the file's lock; they get this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// When a commit counts as done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Synchronous {
    /// When it is on the disk.
    Full,
    /// When the operating system has it.
    Normal,
}

pub(super) struct Sqlite {
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    checkpoints: JoinHandle<()>,
    /// Held as long as the store is open.
    _lock: File,
}

struct Writer {
    connection: SqliteConnection,
    /// A transaction was dropped half done: roll back before the next.
    dirty: bool,
}

impl Sqlite {
    pub(super) async fn open(path: PathBuf, synchronous: Synchronous) -> Result<Self, StoreError> {
        let lock = lock(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", "0")
            .synchronous(match synchronous {
                Synchronous::Full => SqliteSynchronous::Full,
                Synchronous::Normal => SqliteSynchronous::Normal,
            });
        let open_error = |source: sqlx::Error| StoreError::Open {
            path: path.display().to_string(),
            source: std::io::Error::other(source),
        };
        let connection = SqliteConnection::connect_with(&options).await.map_err(open_error)?;
        let checkpointer = SqliteConnection::connect_with(&options).await.map_err(open_error)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .connect_lazy_with(options.clone().create_if_missing(false).pragma("query_only", "on"));
        let writer = Arc::new(Mutex::new(Writer { connection, dirty: false }));
        let checkpoints = tokio::spawn(checkpoint(checkpointer, writer.clone(), log_path(&path)));
        Ok(Self { writer, readers, checkpoints, _lock: lock })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.checkpoints.abort();
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError> {
        let mut writer = self.writer.clone().lock_owned().await;
        if writer.dirty {
            // Fails only if the transaction never began, which is as good.
            let _ = writer.connection.execute("rollback").await;
        }
        writer.dirty = true;
        writer.connection.execute("begin immediate").await.map_err(classify)?;
        Ok(Box::new(SqliteTransaction { writer }))
    }

    async fn read(&self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(classify)?;
        fetch(&mut connection, sql).await
    }

    async fn migrate(&self, component: &'static str, migrations: &[Migration]) -> Result<(), StoreError> {
        // Under the name `bytea` SQLite would read the column as numeric.
        migration::run(self.begin().await?, component, migrations, |sql| sql.replace("bytea", "blob")).await
    }
}

struct SqliteTransaction {
    writer: OwnedMutexGuard<Writer>,
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn execute(&mut self, sql: Sql) -> Result<u64, StoreError> {
        let result = bind(sql).execute(&mut self.writer.connection).await.map_err(classify)?;
        Ok(result.rows_affected())
    }

    async fn fetch(&mut self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        fetch(&mut self.writer.connection, sql).await
    }

    fn for_update(&self) -> &'static str {
        ""
    }

    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        self.writer.connection.execute("commit").await.map_err(classify)?;
        self.writer.dirty = false;
        Ok(())
    }
}

type SqliteQuery = sqlx::query::Query<'static, sqlx::Sqlite, <sqlx::Sqlite as sqlx::Database>::Arguments>;

fn bind(sql: Sql) -> SqliteQuery {
    let (text, args, _) = sql.into_parts();
    args.into_iter().fold(sqlx::query(AssertSqlSafe(text)), |query, arg| match arg {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
    })
}

async fn fetch(connection: &mut SqliteConnection, sql: Sql) -> Result<Vec<Row>, StoreError> {
    let rows = bind(sql).fetch_all(connection).await.map_err(classify)?;
    rows.iter()
        .map(|row| Ok(Row::new((0..row.len()).map(|column| value(row, column)).collect::<Result<_, _>>()?)))
        .collect()
}

fn value(row: &SqliteRow, column: usize) -> Result<Value, StoreError> {
    let raw = row.try_get_raw(column).map_err(StoreError::Refused)?;
    // Not left to the type: a null shows the declared type of its column, and decodes as an empty value.
    if raw.is_null() {
        return Ok(Value::Int(None));
    }
    let value = match raw.type_info().name() {
        "INTEGER" => row.try_get(column).map(|value| Value::Int(Some(value))),
        "TEXT" => row.try_get(column).map(|value| Value::Text(Some(value))),
        _ => row.try_get(column).map(|value| Value::Bytes(Some(value))),
    };
    value.map_err(StoreError::Refused)
}

fn classify(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => StoreError::Conflict(error),
        // Full codes carry the primary code in the low byte: 5 BUSY, 6 LOCKED, 10 IOERR, 13 FULL, 14 CANTOPEN.
        sqlx::Error::Database(database) => match database.code().and_then(|code| code.parse::<u32>().ok()) {
            Some(code) if matches!(code & 0xff, 5 | 6 | 10 | 13 | 14) => StoreError::Unavailable(error),
            Some(_) | None => StoreError::Refused(error),
        },
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreError::Unavailable(error)
        }
        _ => StoreError::Refused(error),
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let open_error = |source| StoreError::Open { path: path.display().to_string(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(open_error)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(with_suffix(path, ".lock"))
        .map_err(open_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(open_error(source)),
    }
}

fn log_path(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies the log back into the file; owned by [`Sqlite`], which aborts it.
async fn checkpoint(mut connection: SqliteConnection, writer: Arc<Mutex<Writer>>, log: PathBuf) {
    let mut interval = tokio::time::interval(CHECKPOINT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut copied = 0;
    loop {
        interval.tick().await;
        let bytes = tokio::fs::metadata(&log).await.map_or(0, |metadata| metadata.len());
        if bytes == copied && bytes <= MAX_LOG_BYTES {
            continue;
        }
        let mut result = connection.execute("pragma wal_checkpoint(passive)").await.map(drop);
        if bytes > MAX_LOG_BYTES {
            // Little is left to copy after the passive one, so the writer waits for milliseconds.
            let _writer = writer.lock().await;
            result = connection.execute("pragma wal_checkpoint(truncate)").await.map(drop);
        }
        copied = bytes;
        if let Err(error) = result {
            tracing::warn!(%error, log = %log.display(), "checkpoint failed; it will be tried again");
        }
    }
}
