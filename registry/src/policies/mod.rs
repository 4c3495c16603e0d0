//! What was set, and holds beside the leases: policies, authorization policies, and bindings. Checked, versioned by etag, and
//! durable before any watcher sees it.
//!
//! An etag is a hash of the content. So it needs no counter that a restart could lose, two registries with the same
//! policy give it the same etag, and setting what is there already is seen to be no change.
//!
//! Each kind has a file of its own: authorization policies and bindings are in those beside that of the policies,
//! `policies.authorization.json` and `policies.bindings.json` beside `policies.json`. One lock holds all three.

mod authorization;
mod binding;
mod collection;
mod error;
mod file;
mod kept;
mod policy;
mod served;

use std::{hash::Hasher as _, path::Path, sync::Arc, time::SystemTime};

use meshwork::{
    contract::meshwork::registry::v1::{AuthorizationPolicy, Binding, Policy},
    file_lock::FileLock,
};
use prost::Message;
use tokio::sync::OwnedMutexGuard;

pub(crate) use authorization::{AuthorizationChange, check_authorization, has_rules, no_rules};
pub(crate) use binding::{Announced, Claims, announced, check_binding, check_grpc_service, with_announcers};
use collection::Collection;
pub use error::{PolicyError, PolicyFileError};
#[cfg(feature = "program")]
pub(crate) use file::folder;
use file::{StoredFile, beside, with_suffix};
pub(crate) use kept::Kept;
pub use kept::Kind;
pub(crate) use policy::{check_policy, none, says_nothing};
pub(crate) use served::Served;

use crate::ProtobufJson;

/// What is kept of one mesh. A cheap handle; its clones share it.
#[derive(Clone, Debug, Default)]
pub struct PolicyStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held from the look at what is there to the end of the write: one change at a time. Those
    /// that wait for it are calls, of which the server admits a bounded number.
    turn: Arc<tokio::sync::Mutex<()>>,
    policies: Collection<Policy>,
    authorizations: Collection<AuthorizationPolicy>,
    bindings: Collection<Binding>,
    /// `None`: all of it is lost with this process.
    lock: Option<FileLock>,
}

impl PolicyStore {
    /// What is in the file of the policies and in those beside it. Each is made when the first entry is set; that of the rules with the
    /// first binding at the latest, so that its loss is noticed.
    ///
    /// # Errors
    /// A file that cannot be read or replaced, holds something else, or that another registry has.
    pub async fn open(path: &Path) -> Result<Self, PolicyFileError> {
        let (json, now) = (ProtobufJson::new(), SystemTime::now());
        let file = StoredFile::open(path, json.clone())?;
        let lock = FileLock::take(&with_suffix(file.path(), "lock")).await.map_err(PolicyFileError::Write)?;
        let lock = Some(lock.ok_or(PolicyFileError::InUse)?);
        let authorizations: Collection<AuthorizationPolicy> = load_beside(file.path(), "authorization", &json, now)?;
        let bindings: Collection<Binding> = load_beside(file.path(), "bindings", &json, now)?;
        // Rules that are lost would open services: those that start without a cache.
        if authorizations.lacks_file() && !bindings.lacks_file() {
            let file = beside(file.path(), "authorization").file_name().unwrap_or_default().into();
            return Err(PolicyFileError::Beside { file, problem: Box::new(PolicyFileError::Missing(Kind::Binding)) });
        }
        let policies = Collection::load(file, now)?;
        Ok(Self(Arc::new(Shared { policies, authorizations, bindings, lock, ..Shared::default() })))
    }

    /// Whether what is set survives the end of this process. Where callers have identities it must: rules do not evaporate.
    pub fn is_durable(&self) -> bool {
        self.0.lock.is_some()
    }

    /// All policies that are set, by service.
    pub(crate) fn policies(&self) -> Vec<Policy> {
        self.0.policies.latest().values().cloned().collect()
    }

    /// All authorization policies that were set or deleted, by service.
    pub(crate) fn authorizations(&self) -> Vec<AuthorizationPolicy> {
        self.0.authorizations.latest().values().cloned().collect()
    }

    /// The right to make a change, as soon as those before have been made.
    pub(crate) async fn turn(&self) -> Turn {
        Turn { _turn: self.0.turn.clone().lock_owned().await, store: self.clone() }
    }
}

/// What is kept in a file beside that of the policies.
fn load_beside<M: Kept>(
    policies: &Path,
    what: &str,
    json: &ProtobufJson,
    now: SystemTime,
) -> Result<Collection<M>, PolicyFileError> {
    let path = beside(policies, what);
    let loaded = StoredFile::open(&path, json.clone()).and_then(|file| Collection::load(file, now));
    let file = || path.file_name().unwrap_or_default().into();
    loaded.map_err(|problem| PolicyFileError::Beside { file: file(), problem: Box::new(problem) })
}

/// The right to make a change.
pub(crate) struct Turn {
    store: PolicyStore,
    _turn: OwnedMutexGuard<()>,
}

/// Whether what is there, which has the etag `before`, may be replaced by whoever has read the one with `asked`; empty: whatever
/// is there.
fn check_etag(kind: Kind, asked: &str, before: &str) -> Result<(), PolicyError> {
    if asked.is_empty() || asked == before { Ok(()) } else { Err(PolicyError::Changed(kind)) }
}

/// The etag of a message without the fields that the registry sets.
fn etag<M: Message>(plain: &M) -> String {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(&plain.encode_to_vec());
    format!("{:016x}", hasher.finish())
}
