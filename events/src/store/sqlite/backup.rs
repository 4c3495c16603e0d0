//! Copies a database as it is at one moment, while it is in use.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Said, classify, connect, open_error};
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
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "already exists; give another name").into());
    }
    let database = open_source(path)?;
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

/// Opens a database of ours, which its user may only be allowed to read.
fn open_source(path: &Path) -> Result<Connection, StoreError> {
    let refused = |kind, problem: &str| open_error(path, io::Error::new(kind, problem));
    let file = fs::metadata(path).map_err(|error| open_error(path, error))?;
    // SQLite calls each of these "unable to open database file".
    if file.is_dir() {
        return Err(open_error(path, io::ErrorKind::IsADirectory.into()));
    }
    if !file.is_file() {
        return Err(refused(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    File::open(path).map_err(|error| open_error(path, error))?;
    // Without CREATE: a slip of the pen is not a new, empty database.
    let database =
        connect(path, OpenFlags::empty()).map_err(|error| open_error(path, io::Error::other(Said(error))))?;
    let ours = "select exists (select 1 from sqlite_master where type = 'table' and name = 'schema_version')";
    match database.query_row(ours, [], |row| row.get(0)) {
        Ok(true) => Ok(database),
        Ok(false) => Err(refused(io::ErrorKind::InvalidData, "it is not a database of Meshwork")),
        // A database that no process has open is read by way of files that SQLite makes beside it.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            let problem = "it is not in use, and to be read then needs write permission for it and its folder";
            Err(refused(io::ErrorKind::PermissionDenied, problem))
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(refused(io::ErrorKind::InvalidData, "it is not an SQLite database"))
        }
        Err(error) => Err(classify(error)),
    }
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
