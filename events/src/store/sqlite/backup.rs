//! Copies a database as it is at one moment, while it is in use.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rusqlite::OpenFlags;

use super::{classify, connect, open_error};
use crate::store::StoreError;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] StoreError),
    /// The copy cannot be written.
    #[error("cannot write it")]
    Target(#[from] io::Error),
}

/// Copies the database at `path` into the new file `target`. Blocks for as long as that takes; the database goes on meanwhile.
///
/// The copy is made beside `target`, synced, and then renamed: a file with that name is complete.
pub(in crate::store) fn backup(path: &Path, target: &Path) -> Result<(), BackupError> {
    if target.try_exists()? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file already exists").into());
    }
    // Without CREATE: a slip of the pen is not a new, empty database.
    let database = connect(path, OpenFlags::empty()).map_err(|error| open_error(path, io::Error::other(error)))?;
    let part = Part::beside(target)?;
    let name = part.0.to_str().ok_or_else(|| io::Error::other("its name must be UTF-8"))?;
    database.execute("vacuum into ?1", [name]).map_err(classify)?;
    let copy = OpenOptions::new().write(true).open(&part.0)?;
    copy.set_permissions(fs::metadata(path)?.permissions())?;
    copy.sync_all()?;
    // Not a rename, which would replace what another backup has put there meanwhile.
    fs::hard_link(&part.0, target)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// The copy while it is made; dropped, its name is taken away.
struct Part(PathBuf);

impl Part {
    fn beside(target: &Path) -> io::Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        // SQLite treats an empty file as a new database; the process that creates it first has the name.
        OpenOptions::new().write(true).create_new(true).open(&part)?;
        Ok(Self(part))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "could not be removed");
        }
    }
}
