//! Copies of a shop's databases, made and put back as docs/operations.md says.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use meshwork_fixture::{Dump, Server};
use tokio::task::spawn_blocking;

use super::{command::Command, error::Error};

/// What SQLite keeps of a database beside its file.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Where a shop's databases are, and where their copies are kept.
pub struct Backups {
    folder: PathBuf,
    data: PathBuf,
    postgres: Option<Arc<Server>>,
    made: AtomicUsize,
}

/// A copy of a service's database.
#[derive(Clone, Debug)]
pub enum Backup {
    Sqlite { copy: PathBuf, of: PathBuf },
    Postgres { dump: Dump, url: String },
}

impl Backups {
    pub(super) fn new(folder: PathBuf, data: PathBuf, postgres: Option<Arc<Server>>) -> Self {
        Self { folder, data, postgres, made: AtomicUsize::default() }
    }

    /// Copies the database of customer or order, which may be in use.
    pub async fn make(&self, service: &'static str, command: &Command) -> Result<Backup, Error> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let copy = self.folder.join(format!("{service}-{number}"));
        let Some(server) = &self.postgres else {
            let of = self.data.join(format!("{service}.db"));
            let url = format!("sqlite://{}", of.display());
            command.run_alone(&["store", "backup", &url, &copy.to_string_lossy()]).await?;
            return Ok(Backup::Sqlite { copy, of });
        };
        let url = server.url(service);
        let dumped = url.clone();
        let dump = spawn_blocking(move || Dump::of(&dumped, copy)).await;
        let dump = dump.expect("it does not panic, and the runtime lives on");
        Ok(Backup::Postgres { dump: dump.map_err(|error| Error::Copy(service, error))?, url })
    }
}

impl Backup {
    /// Replaces the database, which no process may be using, with it.
    pub async fn restore(self, service: &'static str) -> Result<(), Error> {
        let restore = move || match self {
            Self::Postgres { dump, url } => dump.restore(&url),
            Self::Sqlite { copy, of } => {
                for file in files(&of) {
                    match fs::remove_file(file) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        Ok(()) | Err(_) => {}
                    }
                }
                fs::copy(copy, of).map(drop)
            }
        };
        let restored = spawn_blocking(restore).await.expect("it does not panic, and the runtime lives on");
        restored.map_err(|error| Error::Copy(service, error))
    }
}

/// Takes the files of a SQLite database away, or brings them back.
pub fn move_files(database: &Path, away: bool) -> io::Result<()> {
    for file in files(database) {
        let mut hidden = file.clone().into_os_string();
        hidden.push(".away");
        let (from, to) = if away { (file, PathBuf::from(hidden)) } else { (PathBuf::from(hidden), file) };
        match fs::rename(from, to) {
            // After its process has ended in order there is one file alone.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn files(database: &Path) -> impl Iterator<Item = PathBuf> {
    let name = database.as_os_str().to_owned();
    SUFFIXES.into_iter().map(move |suffix| {
        let mut name = name.clone();
        name.push(suffix);
        PathBuf::from(name)
    })
}
