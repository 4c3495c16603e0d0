//! Locks a SQLite file, so that one process holds it at a time.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

/// A process that was just killed holds its locks until the kernel has taken it down; a process that is started at once in
/// its place waits this long for that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The databases that this process holds, by device and inode. They must not be opened a second time: with any handle that it
/// closes a process gives up all its POSIX locks on the file, and so SQLite's.
static DATABASES: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A lock on a SQLite database, by whatever name it is opened (flock, which SQLite's own locks do not meet).
#[derive(Debug)]
pub(super) struct DatabaseLock {
    file: Option<File>,
    id: (u64, u64),
}

impl DatabaseLock {
    /// Takes the lock, making an empty file if it is missing; `None` if another process keeps it for longer than a second.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub(super) async fn take(path: &Path) -> io::Result<Option<Self>> {
        patiently(|| Self::attempt(path)).await
    }

    fn attempt(path: &Path) -> io::Result<Option<Self>> {
        let mut held = databases();
        if fs::metadata(path).is_ok_and(|found| held.contains(&id(&found))) {
            return Ok(None);
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        if !locked(&file)? {
            return Ok(None);
        }
        let id = id(&file.metadata()?);
        held.insert(id);
        Ok(Some(Self { file: Some(file), id }))
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        let mut held = databases();
        drop(self.file.take());
        held.remove(&self.id);
    }
}

fn databases() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    // Each step leaves a whole set.
    DATABASES.lock()
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Tries until there is something, for a while.
async fn patiently<T>(mut attempt: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let taken = attempt()?;
        if taken.is_some() || Instant::now() >= give_up {
            return Ok(taken);
        }
        sleep(PAUSE).await;
    }
}
