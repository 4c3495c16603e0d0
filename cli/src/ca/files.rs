//! The files of an authority and of a certificate, on disk: each is replaced whole, and one process at a time writes a folder.
//!
//! The lock is on the folder itself, so that it leaves no file behind. Services read without it. All of a set is written
//! beside its targets before the first of them is replaced, so that what a crash cuts off can be finished.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use super::Problem;

/// A file in a folder, and who may read it when it is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    mode: u32,
}

const fn secret(name: &'static str) -> Named {
    Named { name, mode: 0o600 }
}

const fn public(name: &'static str) -> Named {
    Named { name, mode: 0o644 }
}

/// The certificate that signs.
pub(super) const CA: Named = public("ca.pem");
/// Its key.
pub(super) const CA_KEY: Named = secret("ca-key.pem");
/// The CAs that are trusted.
pub(super) const BUNDLE: Named = public("bundle.pem");
/// The certificate that will sign.
pub(super) const NEXT: Named = public("next.pem");
/// Its key.
pub(super) const NEXT_KEY: Named = secret("next-key.pem");
/// A service's certificate.
pub(super) const CERT: Named = public("cert.pem");
/// Its key.
pub(super) const KEY: Named = secret("key.pem");
/// Its copy of the bundle.
pub(super) const LEAF_BUNDLE: Named = public("ca.pem");

/// A folder that no other process writes as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: File,
}

/// For a lock, which others need for milliseconds. Everyone who may read a folder can hold its lock for ever; the other folders must be
/// renewed all the same.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(10);

impl Folder {
    /// Waits until no other process writes or reads it, for two seconds.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        Self::lock_by(path, File::try_lock)
    }

    /// To read: waits until no other process writes it, for two seconds.
    pub(super) fn lock_shared(path: &Path) -> io::Result<Self> {
        Self::lock_by(path, File::try_lock_shared)
    }

    fn lock_by(path: &Path, try_lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Self> {
        let handle = File::open(path)?;
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            match try_lock(&handle) {
                Ok(()) => return Ok(Self { path: path.to_owned(), handle }),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => {
                    let problem = "is locked by another process, which does not let go of it";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
                }
            }
        }
    }

    /// What is in a file; `None`: there is none.
    pub(super) fn read(&self, file: Named) -> Result<Option<String>, Problem> {
        read(&self.path.join(file.name)).map_err(|error| Problem::File { file: file.name, error })
    }

    /// The part of [`Folder::replace`] that a crash has cut off; `None`: none.
    pub(super) fn read_draft(&self, file: Named) -> Result<Option<String>, Problem> {
        read(&self.draft(file)).map_err(|error| Problem::File { file: file.name, error })
    }

    /// When a file was last replaced.
    pub(super) fn written(&self, file: Named) -> Result<SystemTime, Problem> {
        let written = fs::metadata(self.path.join(file.name)).and_then(|file| file.modified());
        written.map_err(|error| Problem::File { file: file.name, error })
    }

    /// Replaces files in this order, each at once; one with the same text is left alone. Returns when a power failure cannot undo it.
    pub(super) fn replace(&self, files: &[(Named, &str)]) -> Result<(), Problem> {
        let mut changed = Vec::new();
        for (file, text) in files {
            if self.read(*file)?.as_deref() != Some(*text) {
                self.write_draft(*file, text).map_err(|error| Problem::File { file: file.name, error })?;
                changed.push(*file);
            }
        }
        for file in changed {
            self.finish(file)?;
        }
        self.sync()
    }

    /// Lets a draft take its place.
    pub(super) fn finish(&self, file: Named) -> Result<(), Problem> {
        let renamed = fs::rename(self.draft(file), self.path.join(file.name));
        renamed.map_err(|error| Problem::File { file: file.name, error })
    }

    /// Lets a file take the place of another.
    pub(super) fn rename(&self, from: Named, to: Named) -> Result<(), Problem> {
        let renamed = fs::rename(self.path.join(from.name), self.path.join(to.name));
        renamed.map_err(|error| Problem::File { file: to.name, error })
    }

    /// Makes the names of files durable.
    pub(super) fn sync(&self) -> Result<(), Problem> {
        Ok(self.handle.sync_all()?)
    }

    /// Who could read and own the file before can do so after, so that an operator may give a key to a service's user.
    fn write_draft(&self, file: Named, text: &str) -> io::Result<()> {
        let (path, draft) = (self.path.join(file.name), self.draft(file));
        // One that a crash has left, or a link: neither is written into.
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut written = File::options().write(true).create_new(true).mode(0o600).open(draft)?;
        let before = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
        let mode = before.as_ref().map_or(file.mode, |before| before.permissions().mode());
        if let Some(before) = before {
            // Only root may give files away.
            let _ = fchown(&written, Some(before.uid()), Some(before.gid()));
        }
        written.set_permissions(fs::Permissions::from_mode(mode))?;
        written.write_all(text.as_bytes())?;
        written.sync_all()
    }

    fn draft(&self, file: Named) -> PathBuf {
        self.path.join(format!("{}.draft", file.name))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
