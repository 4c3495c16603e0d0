//! The policies on disk: one file, written whole and renamed, so that it is always the old one or the new one.
//!
//! It is a `ListPoliciesResponse` as protobuf JSON, as `meshwork policy list --json` prints it. One process has it at a time.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use meshwork::{
    contract::meshwork::registry::v1::{ListPoliciesResponse, Policy},
    file_lock::FileLock,
};

use crate::ProtobufJson;

/// Why there is no file of policies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// The file, or its folder, cannot be read or made.
    #[error("cannot be opened: {0}")]
    Io(io::Error),
    /// What is in the file is no list of policies.
    #[error("is not a list of policies: {0}")]
    Malformed(serde_json::Error),
    /// A policy is not one that could have been set.
    #[error("the policy of {service:?} cannot be used: {problem}")]
    Invalid {
        /// Whose policy it is.
        service: String,
        /// The fields that are wrong.
        problem: String,
    },
    /// Another registry has the file.
    #[error("is in use by another registry")]
    InUse,
}

/// The file, which nobody else writes.
#[derive(Debug)]
pub(super) struct PolicyFile {
    path: PathBuf,
    /// The file's name is part of it.
    folder: File,
    json: ProtobufJson,
    _lock: FileLock,
}

impl PolicyFile {
    /// Takes the file, and makes its folder if it is missing.
    pub(super) async fn open(path: &Path) -> Result<Self, PolicyFileError> {
        fs::create_dir_all(folder(path)).map_err(PolicyFileError::Io)?;
        let folder = File::open(folder(path)).map_err(PolicyFileError::Io)?;
        let lock = FileLock::take(&with_suffix(path, "lock")).await.map_err(PolicyFileError::Io)?;
        let lock = lock.ok_or(PolicyFileError::InUse)?;
        Ok(Self { path: path.to_owned(), folder, json: ProtobufJson::new(), _lock: lock })
    }

    /// What was last written; nothing, if there is no file yet.
    pub(super) fn load(&self) -> Result<Vec<Policy>, PolicyFileError> {
        match fs::read(&self.path) {
            Ok(text) => {
                let list = self.json.read::<ListPoliciesResponse>(&text).map_err(PolicyFileError::Malformed)?;
                Ok(list.policies)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(PolicyFileError::Io(error)),
        }
    }

    /// Replaces what is there, and returns when it would survive a power failure. After an error the old policies are
    /// there.
    pub(super) fn save(&self, policies: Vec<Policy>) -> io::Result<()> {
        let text = self.json.pretty(&ListPoliciesResponse { policies, next_page_token: String::new() });
        let draft = with_suffix(&self.path, "draft");
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // The next start loads the new ones from here on, so that it would be wrong to say that they are not in effect.
        if let Err(error) = self.folder.sync_all() {
            tracing::error!(%error, "the policies are written, but a power failure may bring the ones before back");
        }
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
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
    async fn what_the_next_start_will_load_is_stored_even_if_its_folder_cannot_be_made_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = PolicyFile::open(&folder.path().join("policies.json")).await.expect("nobody has it");
        // A device cannot be synced.
        file.folder = File::open("/dev/null").expect("there is one");
        assert!(file.folder.sync_all().is_err());
        let policies = vec![Policy { service: "order".into(), ..Policy::default() }];

        file.save(policies.clone()).expect("it is in the file");

        assert_eq!(file.load().expect("readable"), policies);
    }
}
