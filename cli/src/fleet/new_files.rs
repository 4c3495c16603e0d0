//! The files that a mesh makes in its data folder while it starts: if it does not start, they are removed again.
//!
//! Only what was not there when the folder was locked is touched, and nothing once an instance runs, which may have acknowledged
//! a call.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// The new files of a folder. Dropped, they are removed, unless they are [kept](Self::keep).
pub(super) struct NewFiles {
    folder: PathBuf,
    /// Whether the folder itself is new.
    folder_is_new: bool,
    lock: PathBuf,
    lock_is_new: bool,
    /// What was there before. `None`: the folder is not ours yet, or its new files stay.
    before: Option<BTreeSet<OsString>>,
}

impl NewFiles {
    /// Of a folder that may be there, and may be used by another process.
    pub(super) fn before(folder: &Path, lock: &str) -> Self {
        let lock = folder.join(lock);
        let (folder_is_new, lock_is_new) = (!folder.exists(), !lock.exists());
        Self { folder: folder.to_owned(), folder_is_new, lock, lock_is_new, before: None }
    }

    /// From now on, when the folder is ours by its lock.
    pub(super) fn since_locked(mut self) -> io::Result<Self> {
        let entries = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name()));
        let mut before = entries.collect::<io::Result<BTreeSet<_>>>()?;
        if self.lock_is_new {
            before.retain(|name| Some(name.as_os_str()) != self.lock.file_name());
        }
        self.before = Some(before);
        Ok(self)
    }

    /// The mesh runs.
    pub(super) fn keep(mut self) {
        self.before = None;
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten().filter(|entry| !before.contains(&entry.file_name())) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, file = %path.display(), "a new file could not be removed");
            }
        }
        if self.folder_is_new {
            // Fails if something is left in it, which was told.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_new_goes_and_what_was_there_stays() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("data");
        let start = || {
            let files = NewFiles::before(&folder, "lock");
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join("lock"), "").expect("written");
            files.since_locked().expect("read")
        };
        let files = start();
        fs::write(folder.join("query-1.db"), "").expect("written");
        drop(files);
        assert!(!folder.exists(), "nothing is left of a first start");

        let files = start();
        fs::write(folder.join("order.db"), "").expect("written");
        files.keep();
        let files = start();
        fs::write(folder.join("query-1.db"), "").expect("written");
        drop(files);
        let mut left = names(&folder);
        left.sort();
        assert_eq!(left, ["lock", "order.db"]);
    }
}
