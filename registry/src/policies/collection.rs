//! All that is kept of one kind: in memory, and in its file if it has one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::SystemTime,
};

use meshwork::log_limit::LogLimit;
use parking_lot::{Mutex, MutexGuard};

use super::{Kept, PolicyError, PolicyFileError, file::StoredFile};
use crate::json::shortened;

/// What is kept of one kind, by name.
#[derive(Debug)]
pub(super) struct Collection<M> {
    /// `None`: it is lost with this process.
    file: Option<StoredFile>,
    latest: Mutex<BTreeMap<String, M>>,
    not_written: LogLimit,
    in_memory: LogLimit,
}

impl<M> Default for Collection<M> {
    fn default() -> Self {
        Self { file: None, latest: Mutex::default(), not_written: LogLimit::new(1), in_memory: LogLimit::new(1) }
    }
}

impl<M: Kept> Collection<M> {
    /// What is in a file, which is made when the first is set.
    pub(super) fn load(file: StoredFile, now: SystemTime) -> Result<Self, PolicyFileError> {
        let kind = M::KIND;
        let stored = file.load::<M>()?;
        if stored.len() > kind.limit() {
            return Err(PolicyFileError::TooMany(kind));
        }
        let stored = stored.into_iter().map(|stored| checked(stored, now)).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = stored.iter().find(|stored| !names.insert(stored.name())) {
            return Err(PolicyFileError::Twice { kind, name: shortened(twice.name()) });
        }
        file.try_out()?;
        let set = stored.into_iter().filter(M::is_set);
        let latest = set.map(|stored| (stored.name().to_owned(), stored)).collect();
        Ok(Self { file: Some(file), latest: Mutex::new(latest), ..Self::default() })
    }

    #[cfg(test)]
    pub(super) fn of(all: impl IntoIterator<Item = M>) -> Self {
        let latest = all.into_iter().map(|kept| (kept.name().to_owned(), kept)).collect();
        Self { latest: Mutex::new(latest), ..Self::default() }
    }

    /// All, by name; hold it briefly.
    pub(super) fn latest(&self) -> MutexGuard<'_, BTreeMap<String, M>> {
        self.latest.lock()
    }

    /// Whether it has a file to be in, which is not there.
    pub(super) fn lacks_file(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.path().exists())
    }

    /// Makes its file, if it has one that is not there. Waits for the disk.
    pub(super) fn make_file(&self) -> Result<(), PolicyError> {
        if !self.lacks_file() {
            return Ok(());
        }
        // On its own line: `replace` takes the lock again.
        let latest = self.latest().clone();
        self.replace(latest)
    }

    /// Replaces all of it, in the file first. Waits for the disk. After an error nothing has changed.
    pub(super) fn replace(&self, all: BTreeMap<String, M>) -> Result<(), PolicyError> {
        let kind = M::KIND;
        match &self.file {
            Some(file) => file.save(all.values().cloned().collect()).map_err(|error| {
                if error.kind() == io::ErrorKind::FileTooLarge {
                    return PolicyError::TooLarge(kind);
                }
                if let Some(left_out) = self.not_written.pass() {
                    tracing::error!(%error, "the {} cannot be written{left_out}", kind.many());
                }
                PolicyError::NotStored(kind)
            })?,
            None => {
                if let Some(left_out) = self.in_memory.pass() {
                    tracing::warn!(
                        "{} are kept in memory only and lost when this process ends: see --policy-file{left_out}",
                        kind.many()
                    );
                }
            }
        }
        *self.latest.lock() = all;
        Ok(())
    }
}

/// One of the file, checked.
fn checked<M: Kept>(stored: M, now: SystemTime) -> Result<M, PolicyFileError> {
    let name = shortened(stored.name());
    let invalid = |problem: String| PolicyFileError::Invalid { kind: M::KIND, name, problem };
    stored.read_back(now).map_err(|violations| invalid(violations.to_string()))
}
