//! A file that one process holds at a time.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// A process that was just killed holds its locks until the kernel has taken it down; whoever starts it again at once waits
/// this long for that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A lock file that is held as long as this lives, and freed by the end of the process however it ends.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "held, not used")] File);

impl FileLock {
    /// Takes the lock, making the file if it is missing; `None` if another process keeps it for longer than a second.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub async fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}
