//! The embedded store is a SQLite file of one process.
//!
//! It has one writer connection with `begin immediate` (so that nothing ever waits for a lock in the middle of a transaction),
//! readers beside it, and a thread for checkpoints, off the writer's path. Two locks keep a second process out,
//! where SQLite's own would let it in and fail later, at random: one on the database, and for programs of 0.1 one on a file
//! beside it.
//!
//! A transaction's statements run on the thread that awaits them: a hop to another thread and back costs more than most
//! statements (it was half of the CPU of an order). So a loop that mainly writes belongs on its own thread, as
//! the [writer](crate::writer::Writer)'s; reads go to Tokio's blocking threads.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use meshwork::{file_lock::FileLock, log_limit::LogLimit};
use parking_lot::Mutex as ShortMutex;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

mod backup;
mod files;

pub use backup::BackupError;
pub(super) use backup::backup;
use files::Files;

use super::{Migration, Row, Sql, Store, StoreError, Transaction, Value, lock::DatabaseLock, migrate};

/// Readers that are kept open. More may read at once, each for the price of an open.
const KEPT_READERS: usize = 4;
/// Prepared statements of a connection: the batches of a busy writer differ in their number of rows.
const CACHED_STATEMENTS: usize = 64;
/// How often the log is copied back into the file.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Above this many pages (16 MiB) the writer waits once for a whole checkpoint, so that a log under constant load starts
/// anew. It keeps its size, because writing over blocks is cheaper than growing a file.
const MAX_LOG_PAGES: i64 = 4096;
/// The whole checkpoint holds the writer up, so it gives way to a slow reader after this, and is tried again.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(50);
/// Only a backup tool or a person with `sqlite3` can hold the file's lock; they get this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes room for a moment. In two transactions: of what is made and dropped in one, nothing is written.
const TRIAL: &str = "begin immediate; create table if not exists meshwork_trial (filler blob); \
                     insert into meshwork_trial values (zeroblob(65536)); commit; drop table meshwork_trial";

/// When a commit counts as done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Synchronous {
    /// When it is on the disk.
    Full,
    /// When the operating system has it.
    Normal,
}

pub(super) struct Sqlite {
    path: PathBuf,
    files: Arc<Files>,
    /// A write has failed, as on a full disk, and no trial has succeeded since.
    unwritable: Arc<AtomicBool>,
    writer: Arc<Mutex<Connection>>,
    readers: Arc<ShortMutex<Vec<Connection>>>,
    /// Dropped first, which ends the thread.
    stop: Option<mpsc::Sender<()>>,
    checkpoints: Option<JoinHandle<()>>,
    /// Held as long as the store is open.
    _locks: (FileLock, DatabaseLock),
}

impl Sqlite {
    pub(super) async fn open(path: PathBuf, synchronous: Synchronous) -> Result<Self, StoreError> {
        // A link whose file is yet to be made leads nowhere.
        if path.is_symlink() && !path.exists() {
            std::fs::File::create(&path).map_err(|source| open_error(&path, source))?;
        }
        // SQLite names what it puts beside a database after the file that a link leads to.
        let path = if path.is_symlink() { path.canonicalize().unwrap_or(path) } else { path };
        let locks = lock(&path).await?;
        // Another program's lock is waited for: not on the runtime's threads, so that a signal ends the wait.
        let opening = tokio::task::spawn_blocking(move || Self::open_locked(path, synchronous, locks));
        opening.await.expect("opening does not panic")
    }

    fn open_locked(
        path: PathBuf,
        synchronous: Synchronous,
        locks: (FileLock, DatabaseLock),
    ) -> Result<Self, StoreError> {
        let failed = |error| open_error(&path, std::io::Error::other(Said(error)));
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE).map_err(failed)?;
        let set_up = |connection: &Connection| {
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(
                None,
                "synchronous",
                match synchronous {
                    Synchronous::Full => "full",
                    Synchronous::Normal => "normal",
                },
            )?;
            // So that all files are there.
            connection.execute_batch("begin immediate; rollback; drop table if exists meshwork_trial")
        };
        set_up(&connection).map_err(failed)?;
        let files = Arc::new(Files::of(&path).map_err(|source| open_error(&path, source))?);
        let checkpointer = connect(&path, OpenFlags::empty()).map_err(failed)?;
        checkpointer.busy_timeout(CHECKPOINT_PATIENCE).map_err(failed)?;
        let writer = Arc::new(Mutex::new(connection));
        let (stop, stopped) = mpsc::channel();
        let log = path.clone();
        let others = writer.clone();
        let checkpoints = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || checkpoint(&checkpointer, &others, &log, &stopped))
            .map_err(|source| open_error(&path, source))?;
        Ok(Self {
            path,
            files,
            unwritable: Arc::default(),
            writer,
            readers: Arc::default(),
            stop: Some(stop),
            checkpoints: Some(checkpoints),
            _locks: locks,
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(checkpoints) = self.checkpoints.take() {
            // An error is a panic; it was reported by the panic hook.
            let _ = checkpoints.join();
        }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError> {
        let writer = self.writer.clone().lock_owned().await;
        self.files.check()?;
        writer.execute_batch("begin immediate").map_err(classify)?;
        let (files, unwritable) = (self.files.clone(), self.unwritable.clone());
        Ok(Box::new(SqliteTransaction { writer, files, unwritable }))
    }

    async fn read(&self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        let (readers, path, files) = (self.readers.clone(), self.path.clone(), self.files.clone());
        let read = move || {
            let kept = readers.lock().pop();
            let connection = kept.map_or_else(|| connect(&path, OpenFlags::empty()), Ok).map_err(classify)?;
            let rows = fetch(&connection, sql);
            // Afterwards, since a connection that was just made may be one to another file.
            files.check()?;
            let mut readers = readers.lock();
            if readers.len() < KEPT_READERS {
                readers.push(connection);
            }
            rows
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::Unavailable(error.into()))?
    }

    async fn migrate(&self, component: &'static str, migrations: &[Migration]) -> Result<(), StoreError> {
        // Under the name `bytea` SQLite would read the column as numeric.
        migrate::run(self.begin().await?, false, component, migrations, "blob").await
    }

    async fn place(&self) -> Result<String, StoreError> {
        // Of whatever else than Linux the path alone.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        Ok(format!("{}:{}", host.trim(), path.display()))
    }

    /// That the disk takes more is known only by writing, which is tried once a write has failed.
    async fn check(&self) -> Result<(), StoreError> {
        let (writer, files) = (self.writer.clone().lock_owned().await, self.files.clone());
        let unwritable = self.unwritable.clone();
        // A person with `sqlite3` may hold the lock: do not block a thread on that.
        let check = move || {
            files.check()?;
            writer.execute_batch("begin immediate; rollback").map_err(classify)?;
            if unwritable.load(Ordering::Relaxed) {
                writer.execute_batch(TRIAL).map_err(|error| {
                    let _ = writer.execute_batch("rollback");
                    classify(error)
                })?;
                unwritable.store(false, Ordering::Relaxed);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(check).await.map_err(|error| StoreError::Unavailable(error.into()))?
    }
}

struct SqliteTransaction {
    writer: OwnedMutexGuard<Connection>,
    files: Arc<Files>,
    unwritable: Arc<AtomicBool>,
}

impl SqliteTransaction {
    /// Notes whether writing is possible at all.
    fn noted<T>(&self, written: rusqlite::Result<T>) -> Result<T, StoreError> {
        let written = written.map_err(classify);
        if matches!(written, Err(StoreError::Unavailable(_))) {
            self.unwritable.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        // Not committed: taken back at once, because an open transaction would hold SQLite's own lock.
        if !self.writer.is_autocommit()
            && let Err(error) = self.writer.execute_batch("rollback")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn execute(&mut self, sql: Sql) -> Result<u64, StoreError> {
        let mut statement = self.writer.prepare_cached(&sql.text()).map_err(classify)?;
        let changed = self.noted(statement.execute(params_from_iter(sql.into_args())))?;
        Ok(changed as u64)
    }

    async fn fetch(&mut self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        fetch(&self.writer, sql)
    }

    fn for_update(&self) -> &'static str {
        ""
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.files.check()?;
        self.noted(self.writer.execute_batch("commit"))?;
        // It may have gone into files that were replaced: not to be acknowledged.
        self.files.check().map_err(|error| StoreError::CommitUnknown(error.into()))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(Some(value)) => ValueRef::Integer(*value),
            Self::Text(Some(value)) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(Some(value)) => ValueRef::Blob(value),
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) => ValueRef::Null,
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

fn fetch(connection: &Connection, sql: Sql) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(&sql.text()).map_err(classify)?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(sql.into_args())).map_err(classify)?;
    let mut fetched = Vec::new();
    while let Some(row) = rows.next().map_err(classify)? {
        let value = |column| row.get_ref(column).map_err(classify).and_then(|value| owned(column, value));
        fetched.push(Row::new((0..columns).map(value).collect::<Result<_, _>>()?));
    }
    Ok(fetched)
}

fn owned(column: usize, value: ValueRef<'_>) -> Result<Value, StoreError> {
    match value {
        ValueRef::Null => Ok(Value::Int(None)),
        ValueRef::Integer(value) => Ok(Value::Int(Some(value))),
        ValueRef::Text(value) => std::str::from_utf8(value)
            .map(Value::from)
            .map_err(|_| StoreError::Decode { column, expected: "UTF-8 text" }),
        ValueRef::Blob(value) => Ok(Value::Bytes(Some(value.to_vec()))),
        ValueRef::Real(_) => Err(StoreError::Decode { column, expected: "a bigint, text or bytea" }),
    }
}

/// Only opening the store may make the file: with no flag of `SQLITE_OPEN_CREATE` a missing one is an error.
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(connection)
}

/// An error in SQLite's words alone: its source has them again, after the code.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(rusqlite::Error);

fn classify(error: rusqlite::Error) -> StoreError {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    let Some(&cause) = error.sqlite_error() else { return StoreError::Refused(Said(error).into()) };
    let error = Said(error);
    match cause.code {
        ErrorCode::ConstraintViolation
            if [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY].contains(&cause.extended_code) =>
        {
            StoreError::Conflict(error.into())
        }
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::SystemIoFailure
        | ErrorCode::DiskFull
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::CannotOpen => StoreError::Unavailable(error.into()),
        _ => StoreError::Refused(error.into()),
    }
}

async fn lock(path: &Path) -> Result<(FileLock, DatabaseLock), StoreError> {
    // Not made here: one that is missing is mostly a slip of the pen, and a new database would hide it.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        let problem = format!("there is no folder {}", folder.display());
        return Err(open_error(path, std::io::Error::new(std::io::ErrorKind::NotFound, problem)));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| open_error(path, source);
    let in_use = || StoreError::InUse { path: path.display().to_string() };
    let beside = FileLock::take(Path::new(&name)).await.map_err(failed)?.ok_or_else(in_use)?;
    let database = DatabaseLock::take(path).await.map_err(failed)?.ok_or_else(in_use)?;
    Ok((beside, database))
}

fn open_error(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Open { path: path.display().to_string(), source }
}

/// Copies the log back into the file again and again, until `stopped` is; owned by [`Sqlite`], which joins it.
fn checkpoint(connection: &Connection, writer: &Mutex<Connection>, path: &Path, stopped: &mpsc::Receiver<()>) {
    let limit = LogLimit::new(1);
    while stopped.recv_timeout(CHECKPOINT_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        if let Err(error) = copy_back(connection, writer)
            && let Some(left_out) = limit.pass()
        {
            tracing::warn!(%error, database = %path.display(), "checkpoint failed; retrying later{left_out}");
        }
    }
}

/// Copies the log back into the file; a long log is also begun anew, for which the writer has to wait. Answers how many pages
/// the log had.
fn copy_back(connection: &Connection, writer: &Mutex<Connection>) -> rusqlite::Result<i64> {
    let run = |mode: &str| {
        let pragma = format!("pragma wal_checkpoint({mode})");
        connection.query_row(&pragma, [], |row| row.get::<_, i64>(1))
    };
    let pages = run("passive")?;
    if pages > MAX_LOG_PAGES {
        // Little is left to copy after the passive one. A reader that stays longer than our patience makes this a passive one
        // as well, which is no error.
        let _writer = writer.blocking_lock();
        run("restart")?;
    }
    Ok(pages)
}

#[cfg(test)]
mod tests;
