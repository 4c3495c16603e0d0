//! What is kept, on disk: one file for each kind, written whole and renamed, so that it is always the old one or the new one.
//!
//! It is the answer of the rpc that lists them as protobuf JSON, as `meshwork policy list --json` prints it. A link stays: the file that it leads to is replaced. Whether it can be replaced is tried at the start, by
//! replacing it with its own contents: a file that is mounted alone cannot be replaced (nomad #2560), and a read-only
//! one would fail an operator later.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use super::{Kept, PolicyFileError};
use crate::{ProtobufJson, limits::MAX_FILE_BYTES};

/// A file; whoever has it sees to it that no other process writes it.
#[derive(Debug)]
pub(super) struct StoredFile {
    /// Never a link.
    path: PathBuf,
    /// The file's name is part of it.
    folder: File,
    json: ProtobufJson,
}

impl StoredFile {
    /// Finds the file, and makes its folder if it is missing.
    pub(super) fn open(path: &Path, json: ProtobufJson) -> Result<Self, PolicyFileError> {
        let path = if path.is_symlink() { target(path)? } else { path.to_owned() };
        fs::create_dir_all(folder(&path)).map_err(PolicyFileError::Io)?;
        if path.exists() && !path.is_file() {
            return Err(PolicyFileError::NotAFile);
        }
        let folder = File::open(folder(&path)).map_err(PolicyFileError::Io)?;
        Ok(Self { path, folder, json })
    }

    /// Where it is; never a link.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was last written; nothing, if there is no file yet.
    pub(super) fn load<M: Kept>(&self) -> Result<Vec<M>, PolicyFileError> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() > MAX_FILE_BYTES) {
            return Err(PolicyFileError::TooLarge);
        }
        match fs::read(&self.path) {
            Ok(text) => {
                let list = self.json.read::<M::List>(&text);
                Ok(M::entries(list.map_err(|error| PolicyFileError::Malformed { kind: M::KIND, error })?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(PolicyFileError::Io(error)),
        }
    }

    /// Replaces the file by one with the same text, or makes and removes a draft if there is none.
    pub(super) fn try_out(&self) -> Result<(), PolicyFileError> {
        let tried = match fs::read(&self.path) {
            Ok(text) => self.replace(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.draft(&[]).and_then(|()| fs::remove_file(self.draft_path()))
            }
            Err(error) => Err(error),
        };
        tried.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => PolicyFileError::Mounted,
            _ => PolicyFileError::Write(error),
        })
    }

    /// Replaces what is there, and returns when it would survive a power failure. After an error what was there before is
    /// there. [`FileTooLarge`](io::ErrorKind::FileTooLarge): the next start would not read it.
    pub(super) fn save<M: Kept>(&self, all: Vec<M>) -> io::Result<()> {
        let text = self.json.pretty(&M::list(all));
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.replace(text.as_bytes())?;
        // The next start loads the new ones from here on, so that it would be wrong to say that they are not in effect.
        if let Err(error) = self.folder.sync_all() {
            tracing::error!(%error, "the {} are written, but a power failure may bring back the previous ones", M::KIND.many());
        }
        Ok(())
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        self.draft(text)?;
        fs::rename(self.draft_path(), &self.path).inspect_err(|_| {
            // It may be in the way of nothing; the next one is written over it.
            let _ = fs::remove_file(self.draft_path());
        })
    }

    /// Writes a file beside the one that it is to replace, with its permissions.
    fn draft(&self, text: &[u8]) -> io::Result<()> {
        // One that a crash left, or a link: neither is written into.
        if let Err(error) = fs::remove_file(self.draft_path())
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = File::create_new(self.draft_path())?;
        if let Ok(before) = fs::metadata(&self.path) {
            file.set_permissions(before.permissions())?;
            // Only root may give files away.
            let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
        }
        file.write_all(text)?;
        file.sync_all()
    }

    fn draft_path(&self) -> PathBuf {
        with_suffix(&self.path, "draft")
    }
}

/// The file that a link leads to, which need not be there yet.
fn target(link: &Path) -> Result<PathBuf, PolicyFileError> {
    let mut target = link.to_owned();
    loop {
        match target.canonicalize() {
            Ok(found) => return Ok(found),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(PolicyFileError::Link { target, source });
            }
            Err(source) => match fs::read_link(&target) {
                Ok(next) => target = folder(&target).join(next),
                // The end of the links: a file is made there, and no folder.
                Err(_) if folder(&target).is_dir() => return Ok(target),
                Err(_) => return Err(PolicyFileError::Link { target, source }),
            },
        }
    }
}

/// The folder that a file is in.
pub(crate) fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The name of the file that keeps another kind, beside one: `policies.json` -> `policies.bindings.json`.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::Policy;

    use super::*;

    fn open(folder: &Path) -> StoredFile {
        StoredFile::open(&folder.join("policies.json"), ProtobufJson::new()).expect("a folder")
    }

    #[test]
    fn a_file_beside_another_keeps_its_folder_and_its_extension() {
        for (path, expected) in [
            ("/data/policies.json", "/data/policies.bindings.json"),
            ("policies", "policies.bindings"),
            ("a.b.json", "a.b.bindings.json"),
            ("/data/.json", "/data/.json.bindings"),
        ] {
            assert_eq!(beside(Path::new(path), "bindings"), Path::new(expected));
        }
    }

    #[test]
    fn a_draft_that_was_left_is_neither_written_into_nor_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = open(folder.path());
        let other = folder.path().join("other");
        fs::write(&other, "not ours").expect("written");
        std::os::unix::fs::symlink(&other, file.draft_path()).expect("linked");

        file.save(Vec::<Policy>::new()).expect("stored");

        assert_eq!(fs::read_to_string(&other).expect("readable"), "not ours");
        assert!(file.path.is_file() && !file.path.is_symlink());
    }

    #[test]
    fn what_the_next_start_would_not_read_is_not_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = open(folder.path());
        let policy = |service: String| vec![Policy { service, ..Policy::default() }];
        file.save(policy("order".into())).expect("it is small");
        let refused = file.save(policy("x".repeat(33 << 20))).expect_err("it is large");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(file.load::<Policy>().expect("readable"), policy("order".into()));
    }

    #[test]
    fn what_the_next_start_will_load_is_stored_even_if_its_folder_cannot_be_made_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = open(folder.path());
        // A device cannot be synced.
        file.folder = File::open("/dev/null").expect("there is one");
        assert!(file.folder.sync_all().is_err());
        let policies = vec![Policy { service: "order".into(), ..Policy::default() }];

        file.save(policies.clone()).expect("it is in the file");

        assert_eq!(file.load::<Policy>().expect("readable"), policies);
    }
}
