//! The policies on disk: one file, written whole and renamed, so that it is always the old one or the new one.
//!
//! It is a `ListPoliciesResponse` as protobuf JSON, as `meshwork policy list --json` prints it. One process uses it at
//! a time. A link stays: the file that it leads to is replaced. Whether it can be replaced is tried at the start, by
//! replacing it with its own contents: a file that is mounted alone cannot be replaced (nomad #2560), and a read-only
//! one would fail an operator later.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use meshwork::{
    contract::meshwork::registry::v1::{ListPoliciesResponse, Policy},
    file_lock::FileLock,
};

use crate::{
    ProtobufJson,
    limits::{MAX_POLICIES, grouped},
};

/// 4,096 policies of 8 KiB, which is several times what one with everything in it has.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Why there is no file of policies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// The file, or its folder, cannot be read or made.
    #[error("cannot be opened: {0}")]
    Io(io::Error),
    /// It is a folder, a device or a pipe.
    #[error("is not a regular file")]
    NotAFile,
    /// A link leads in a circle, or into a folder that is not there.
    #[error("is a symbolic link to {}, which does not exist and cannot be created: {source}", target.display())]
    Link {
        /// Where it leads.
        target: PathBuf,
        /// Why there can be no file.
        source: io::Error,
    },
    /// The file cannot be replaced by another.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// The file is mounted as a single file.
    #[error("is mounted as a single file and cannot be replaced as a whole: mount its folder instead")]
    Mounted,
    /// The file has two policies of one service.
    #[error("has more than one policy of {0:?}: keep one")]
    Twice(String),
    /// It has more policies than a registry.
    #[error("has more than {} policies", grouped(MAX_POLICIES))]
    TooMany,
    /// It is larger than all policies of a registry can be.
    #[error("is larger than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    /// What is in the file is no list of policies.
    #[error("is not a list of policies ({}): restore it, or remove it to go back to the defaults", told(.0))]
    Malformed(serde_json::Error),
    /// A policy is not one that could have been set.
    #[error("the policy of {service:?} cannot be used: {problem}")]
    Invalid {
        /// Whose policy it is.
        service: String,
        /// The fields that are wrong.
        problem: String,
    },
    /// Another registry is using the file.
    #[error("is in use by another registry")]
    InUse,
}

/// The parser's words, after the place.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (line, column) = (error.line(), error.column());
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(problem) => format!("line {line}, column {column}: {problem}"),
        None => text,
    }
}

/// The file; no other process writes it.
#[derive(Debug)]
pub(super) struct PolicyFile {
    /// Never a link.
    path: PathBuf,
    /// The file's name is part of it.
    folder: File,
    json: ProtobufJson,
    _lock: FileLock,
}

impl PolicyFile {
    /// Takes the file, and makes its folder if it is missing.
    pub(super) async fn open(path: &Path) -> Result<Self, PolicyFileError> {
        let path = if path.is_symlink() { target(path)? } else { path.to_owned() };
        fs::create_dir_all(folder(&path)).map_err(PolicyFileError::Io)?;
        if path.exists() && !path.is_file() {
            return Err(PolicyFileError::NotAFile);
        }
        let folder = File::open(folder(&path)).map_err(PolicyFileError::Io)?;
        let lock = FileLock::take(&with_suffix(&path, "lock")).await.map_err(PolicyFileError::Write)?;
        let lock = lock.ok_or(PolicyFileError::InUse)?;
        Ok(Self { path, folder, json: ProtobufJson::new(), _lock: lock })
    }

    /// What was last written; nothing, if there is no file yet.
    pub(super) fn load(&self) -> Result<Vec<Policy>, PolicyFileError> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() > MAX_FILE_BYTES) {
            return Err(PolicyFileError::TooLarge);
        }
        match fs::read(&self.path) {
            Ok(text) => {
                let list = self.json.read::<ListPoliciesResponse>(&text).map_err(PolicyFileError::Malformed)?;
                Ok(list.policies)
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

    /// Replaces what is there, and returns when it would survive a power failure. After an error the old policies are
    /// there.
    pub(super) fn save(&self, policies: Vec<Policy>) -> io::Result<()> {
        let text = self.json.pretty(&ListPoliciesResponse { policies, next_page_token: String::new() });
        self.replace(text.as_bytes())?;
        // The next start loads the new ones from here on, so that it would be wrong to say that they are not in effect.
        if let Err(error) = self.folder.sync_all() {
            tracing::error!(%error, "the policies are written, but a power failure may bring back the previous ones");
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_draft_that_was_left_is_neither_written_into_nor_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = PolicyFile::open(&folder.path().join("policies.json")).await.expect("the file is free");
        let other = folder.path().join("other");
        fs::write(&other, "not ours").expect("written");
        std::os::unix::fs::symlink(&other, file.draft_path()).expect("linked");

        file.save(Vec::new()).expect("stored");

        assert_eq!(fs::read_to_string(&other).expect("readable"), "not ours");
        assert!(file.path.is_file() && !file.path.is_symlink());
    }

    #[tokio::test]
    async fn what_the_next_start_will_load_is_stored_even_if_its_folder_cannot_be_made_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = PolicyFile::open(&folder.path().join("policies.json")).await.expect("not in use");
        // A device cannot be synced.
        file.folder = File::open("/dev/null").expect("there is one");
        assert!(file.folder.sync_all().is_err());
        let policies = vec![Policy { service: "order".into(), ..Policy::default() }];

        file.save(policies.clone()).expect("it is in the file");

        assert_eq!(file.load().expect("readable"), policies);
    }
}
