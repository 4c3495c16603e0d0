//! The files that a mesh makes in its data folder while it starts: if it does not start, they are removed again.
//!
//! Only files that are known by name, and were not there when the folder was locked, are removed: whatever else appears in the
//! folder meanwhile is not the mesh's. Nothing is removed once an instance runs, which may have acknowledged a call.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What is added to the name of a database for the files that SQLite and the store make of it.
const OF_DATABASE: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];
/// What the registry adds to the name of its policies at its start; they themselves are written when one is set.
const OF_POLICIES: [&str; 2] = [".lock", ".draft"];

/// The new files of a folder. Dropped, they are removed, unless they are [kept](Self::keep).
pub(super) struct NewFiles {
    folder: PathBuf,
    /// Whether the folder itself is new.
    folder_is_new: bool,
    lock: PathBuf,
    lock_is_new: bool,
    /// What is to be removed. `None`: the folder is not ours yet, or its new files stay.
    new: Option<Vec<PathBuf>>,
}

impl NewFiles {
    /// Of a folder that may be there, and may be used by another process.
    pub(super) fn before(folder: &Path, lock: &str) -> Self {
        let lock = folder.join(lock);
        let (folder_is_new, lock_is_new) = (!folder.exists(), is_missing(&lock));
        Self { folder: folder.to_owned(), folder_is_new, lock, lock_is_new, new: None }
    }

    /// From now on, when the folder is ours by its lock.
    pub(super) fn since_locked(mut self, databases: &[PathBuf], policies: &Path) -> Self {
        let databases = databases.iter().flat_map(|database| OF_DATABASE.map(|suffix| with_suffix(database, suffix)));
        let made = databases.chain(OF_POLICIES.map(|suffix| with_suffix(policies, suffix)));
        let lock = self.lock_is_new.then(|| self.lock.clone());
        self.new = Some(made.filter(|file| is_missing(file)).chain(lock).collect());
        self
    }

    /// The mesh runs.
    pub(super) fn keep(mut self) {
        self.new = None;
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        let Some(new) = &self.new else { return };
        for file in new {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %file.display(), "a new file could not be removed");
                }
                Ok(()) | Err(_) => {}
            }
        }
        if self.folder_is_new {
            // Fails if there is something else in it, which stays.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// What cannot be looked at counts as there.
fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn write(folder: &Path, names: &[&str]) {
        for name in names {
            fs::write(folder.join(name), "").expect("written");
        }
    }

    fn start(folder: &Path) -> NewFiles {
        let files = NewFiles::before(folder, "lock");
        fs::create_dir_all(folder).expect("made");
        write(folder, &["lock"]);
        let databases = ["order.db", "query-1.db"].map(|name| folder.join(name));
        files.since_locked(&databases, &folder.join("policies.json"))
    }

    #[test]
    fn what_is_new_goes_and_what_was_there_stays() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("data");
        let files = start(&folder);
        write(&folder, &["query-1.db", "query-1.db-wal", "query-1.db-shm", "query-1.db.lock"]);
        write(&folder, &["policies.json.lock", "policies.json.draft"]);
        drop(files);
        assert!(!folder.exists(), "nothing is left of a first start");

        let files = start(&folder);
        write(&folder, &["order.db"]);
        files.keep();
        let files = start(&folder);
        write(&folder, &["query-1.db"]);
        drop(files);
        assert_eq!(names(&folder), ["lock", "order.db"]);
    }

    #[test]
    fn what_others_put_into_the_folder_during_the_start_stays() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("data");
        let files = start(&folder);
        write(&folder, &["order.db", "notes.txt", "other.db", "policies.json"]);
        // Folders stay whatever their names are.
        for photos in ["photos", "query-1.db"].map(|name| folder.join(name)) {
            fs::create_dir(&photos).expect("made");
            write(&photos, &["1.png"]);
        }
        drop(files);
        assert_eq!(names(&folder), ["notes.txt", "other.db", "photos", "policies.json", "query-1.db"]);
        assert_eq!(names(&folder.join("photos")), ["1.png"]);
        assert_eq!(names(&folder.join("query-1.db")), ["1.png"]);
    }
}
