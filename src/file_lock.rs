//! A file that one process holds at a time.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// A process that was just killed holds its locks until the kernel has taken it down; a restart right after it waits
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
        let mut file = open(path)?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) if is_at(&file, path)? => return Ok(Some(Self(file))),
                // Its holder has removed it: a lock on it would exclude no other process.
                Ok(()) => file = open(path)?,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // To open a pipe is to wait for its other end.
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other(format!("{} is not a regular file", path.display())));
    }
    File::options().create(true).truncate(false).write(true).open(path)
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (held, there) = (file.metadata()?, path.metadata());
    Ok(there.is_ok_and(|there| (held.dev(), held.ino()) == (there.dev(), there.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("it runs");
        assert!(made.success());
        for path in [pipe.as_path(), folder.path()] {
            let error = FileLock::take(path).await.expect_err("no file");
            assert!(error.to_string().ends_with("is not a regular file"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_lock_file_that_its_holder_has_removed_is_made_again_by_a_waiter() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let first = FileLock::take(&path).await.expect("made").expect("free");
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { FileLock::take(&path).await }
        });
        tokio::task::yield_now().await;
        std::fs::remove_file(&path).expect("there");
        drop(first);
        let second = waiting.await.expect("no panic").expect("made").expect("free");
        assert!(path.exists() && FileLock::take(&path).await.expect("made").is_none());
        drop(second);
    }
}
