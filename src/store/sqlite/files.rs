//! Whether the files at a database's path are those that are open.
//!
//! A process keeps its files when somebody removes, moves or replaces them, and would go on acknowledging what nobody will
//! find again (better-sqlite3 #1237). So they are compared, by device and inode, before a transaction begins and before its
//! commit is answered; a file that became shorter was written over, because SQLite never shrinks one by itself.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::store::StoreError;

/// What SQLite puts beside a database in WAL mode, and keeps for as long as somebody has it open.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The files of an open database.
pub(super) struct Files {
    path: PathBuf,
    main: Identity,
    /// The longest that the main file was seen to be.
    longest: AtomicU64,
    companions: [(PathBuf, Identity); 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Files {
    /// Remembers the files of a database that was opened in WAL mode, and has had a transaction.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let (main, longest) = look(path)?;
        let companion = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let companion = PathBuf::from(name);
            look(&companion).map(|(identity, _)| (companion, identity))
        };
        let companions = [companion(COMPANIONS[0])?, companion(COMPANIONS[1])?];
        Ok(Self { path: path.to_owned(), main, longest: longest.into(), companions })
    }

    /// # Errors
    /// [`StoreError::Replaced`] if a file is not there, is another one, or was cut.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let replaced = |path: &Path| StoreError::Replaced { path: path.display().to_string() };
        // Before the look: another thread may record a length to which the file grows after it.
        let longest = self.longest.load(Ordering::Acquire);
        let (main, length) = look(&self.path).map_err(|_| replaced(&self.path))?;
        if main != self.main || length < longest {
            return Err(replaced(&self.path));
        }
        self.longest.fetch_max(length, Ordering::Release);
        let is_other = |(path, identity): &&(PathBuf, Identity)| !look(path).is_ok_and(|(now, _)| now == *identity);
        self.companions.iter().find(is_other).map_or(Ok(()), |(path, _)| Err(replaced(path)))
    }
}

fn look(path: &Path) -> io::Result<(Identity, u64)> {
    let found = fs::metadata(path)?;
    Ok((Identity { device: found.dev(), inode: found.ino() }, found.len()))
}
