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
    rpc::ProtobufJson,
    store::FileLock,
};

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
    json: ProtobufJson,
    _lock: FileLock,
}

impl PolicyFile {
    /// Takes the file, and makes its folder if it is missing.
    pub(super) async fn open(path: &Path) -> Result<Self, PolicyFileError> {
        fs::create_dir_all(folder(path)).map_err(PolicyFileError::Io)?;
        let lock = FileLock::take(&with_suffix(path, "lock")).await.map_err(PolicyFileError::Io)?;
        let lock = lock.ok_or(PolicyFileError::InUse)?;
        Ok(Self { path: path.to_owned(), json: ProtobufJson::new(), _lock: lock })
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

    /// Replaces what is there, and returns when it would survive a power failure.
    pub(super) fn save(&self, policies: Vec<Policy>) -> io::Result<()> {
        let text = self.json.pretty(&ListPoliciesResponse { policies, next_page_token: String::new() });
        let draft = with_suffix(&self.path, "draft");
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // The name is part of the folder.
        File::open(folder(&self.path))?.sync_all()
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
