//! Checks that the files at a database's path are the open ones.
//!
//! A process keeps its files when they are removed, moved or replaced, and would go on acknowledging what cannot be found again
//! (better-sqlite3 #1237). So they are compared, by device and inode, before a transaction begins and before its
//! commit is answered; a database or log that became shorter was written over, because SQLite never shrinks the database unasked, and
//! we keep the other as long as it was.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::store::StoreError;

/// The files of an open database: itself, and what SQLite puts beside it in WAL mode and keeps for as long as it is open.
pub(super) struct Files {
    database: Found,
    log: Found,
    index: Found,
}

/// A file as it was found.
struct Found {
    path: PathBuf,
    identity: Identity,
    /// The longest that it was seen to be.
    longest: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Files {
    /// Remembers the files of a database that was opened in WAL mode, and has had a transaction.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let path = PathBuf::from(name);
            look(&path).map(|(identity, length)| Found { path, identity, longest: length.into() })
        };
        Ok(Self { database: found("")?, log: found("-wal")?, index: found("-shm")? })
    }

    /// # Errors
    /// [`StoreError::Replaced`] if a file is not there, is another one, or was cut.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        [&self.database, &self.log, &self.index].into_iter().try_for_each(Found::check)
    }
}

impl Found {
    fn check(&self) -> Result<(), StoreError> {
        // Before the look: another thread may record a length to which the file grows after it.
        let longest = self.longest.load(Ordering::Acquire);
        match look(&self.path) {
            Ok((identity, length)) if identity == self.identity && length >= longest => {
                self.longest.fetch_max(length, Ordering::Release);
                Ok(())
            }
            Ok(_) | Err(_) => Err(StoreError::Replaced { path: self.path.display().to_string() }),
        }
    }
}

fn look(path: &Path) -> io::Result<(Identity, u64)> {
    let found = fs::metadata(path)?;
    Ok((Identity { device: found.dev(), inode: found.ino() }, found.len()))
}
