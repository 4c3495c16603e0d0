//! The policies that were set: checked, versioned by etag, and durable before any watcher sees them.
//!
//! The etag is a hash of the policy itself. So it needs no counter that a restart could lose, two registries with the same
//! policy give it the same etag, and setting what is there already is seen to be no change.

mod check;
mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use meshwork::{
    contract::meshwork::registry::v1::{EjectionPolicy, Policy, RetryPolicy, ZonePolicy},
    log_limit::LogLimit,
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::OwnedMutexGuard;

pub(crate) use check::check_policy;
pub use file::PolicyFileError;
#[cfg(feature = "program")]
pub(crate) use file::folder;

use crate::{
    json::shortened,
    limits::{MAX_POLICIES, grouped},
};
use file::PolicyFile;

/// The policies of one mesh. A cheap handle; its clones share them.
#[derive(Clone, Debug, Default)]
pub struct PolicyStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: the policies are lost with this process.
    file: Option<PolicyFile>,
    /// Held from the look at what is there to the end of the write: one change at a time. Those
    /// that wait for it are calls, of which the server admits a bounded number.
    turn: Arc<tokio::sync::Mutex<()>>,
    latest: Mutex<BTreeMap<String, Policy>>,
    not_written: LogLimit,
    in_memory: LogLimit,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            file: None,
            turn: Arc::default(),
            latest: Mutex::default(),
            not_written: LogLimit::new(1),
            in_memory: LogLimit::new(1),
        }
    }
}

/// Why a policy is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The policy is not the one that was to be replaced.
    #[error(
        "the policy has changed since it was read: run \"meshwork policy get SERVICE --json\" again, and repeat the change"
    )]
    Changed,
    /// [`MAX_POLICIES`].
    #[error("the registry is full ({} policies)", grouped(MAX_POLICIES))]
    TooMany,
    /// The file cannot be written.
    #[error("the policy could not be stored and is not in effect")]
    NotStored,
}

impl PolicyStore {
    /// The policies in a file, which is made when the first is set.
    ///
    /// # Errors
    /// A file that cannot be read or replaced, holds something else, or that another registry has.
    pub async fn open(path: &Path) -> Result<Self, PolicyFileError> {
        let file = PolicyFile::open(path).await?;
        let now = SystemTime::now();
        let stored = file.load()?;
        if stored.len() > MAX_POLICIES {
            return Err(PolicyFileError::TooMany);
        }
        let stored = stored.into_iter().map(|stored| check_stored(stored, now)).collect::<Result<Vec<_>, _>>()?;
        let mut services = BTreeSet::new();
        if let Some(twice) = stored.iter().find(|policy| !services.insert(&policy.service)) {
            return Err(PolicyFileError::Twice(shortened(&twice.service)));
        }
        file.try_out()?;
        let set = stored.into_iter().filter(is_set);
        let latest = set.map(|policy| (policy.service.clone(), policy)).collect();
        Ok(Self(Arc::new(Shared { file: Some(file), latest: Mutex::new(latest), ..Shared::default() })))
    }

    /// All that are set, by service.
    pub(crate) fn all(&self) -> Vec<Policy> {
        self.0.latest.lock().values().cloned().collect()
    }

    /// The right to make a change, as soon as those before have been made.
    pub(crate) async fn turn(&self) -> Turn {
        Turn { _turn: self.0.turn.clone().lock_owned().await, store: self.clone() }
    }
}

/// The right to make a change.
pub(crate) struct Turn {
    store: PolicyStore,
    _turn: OwnedMutexGuard<()>,
}

impl Turn {
    /// Sets a policy that was checked; returns it as it is now, and whether that is new. Waits for the disk.
    pub(crate) fn set(&self, asked: Policy, now: SystemTime) -> Result<(Policy, bool), PolicyError> {
        let mut policies = self.store.0.latest.lock().clone();
        let before = policies.remove(&asked.service).unwrap_or_else(|| none(&asked.service));
        let Some(after) = replace(&before, asked, now)? else { return Ok((before, false)) };
        if is_set(&after) {
            if policies.len() >= MAX_POLICIES {
                return Err(PolicyError::TooMany);
            }
            policies.insert(after.service.clone(), after.clone());
        }
        match &self.store.0.file {
            Some(file) => file.save(policies.values().cloned().collect()).map_err(|error| {
                if let Some(left_out) = self.store.0.not_written.pass() {
                    tracing::error!(%error, "the policies cannot be written{left_out}");
                }
                PolicyError::NotStored
            })?,
            None => {
                if let Some(left_out) = self.store.0.in_memory.pass() {
                    tracing::warn!(
                        "policies are kept in memory only and lost when this process ends: see --policy-file{left_out}"
                    );
                }
            }
        }
        *self.store.0.latest.lock() = policies;
        Ok((after, true))
    }
}

/// The policy of a service that none was set for: every field has its default.
pub(crate) fn none(service: &str) -> Policy {
    let policy = Policy { service: service.to_owned(), ..Policy::default() };
    Policy { etag: etag(&policy), ..policy }
}

/// Whether it was ever set.
pub(crate) fn is_set(policy: &Policy) -> bool {
    policy.update_time.is_some()
}

/// Whether it leaves everything to the defaults.
pub(crate) fn says_nothing(policy: &Policy) -> bool {
    policy.etag == none(&policy.service).etag
}

/// What comes of `before` if `asked` is to take its place; `None`: it is the same already.
fn replace(before: &Policy, asked: Policy, now: SystemTime) -> Result<Option<Policy>, PolicyError> {
    let replaces = asked.etag.clone();
    let after = complete(asked, now);
    if after.etag == before.etag {
        return Ok(None);
    }
    if replaces.is_empty() || replaces == before.etag { Ok(Some(after)) } else { Err(PolicyError::Changed) }
}

/// A policy in normal form, with the fields that the registry sets.
fn complete(policy: Policy, update_time: SystemTime) -> Policy {
    let plain = Policy {
        retry: policy.retry.filter(|retry| *retry != RetryPolicy::default()),
        ejection: policy.ejection.filter(|ejection| *ejection != EjectionPolicy::default()),
        zones: policy.zones.filter(|zones| *zones != ZonePolicy::default()),
        etag: String::new(),
        update_time: None,
        ..policy
    };
    let none = none(&plain.service);
    match etag(&plain) {
        etag if etag == none.etag => none,
        etag => Policy { etag, update_time: Some(update_time.into()), ..plain },
    }
}

/// Of a plain policy.
fn etag(policy: &Policy) -> String {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(&policy.encode_to_vec());
    format!("{:016x}", hasher.finish())
}

/// A policy of the file, which people may have written: checked like one of a request.
fn check_stored(stored: Policy, now: SystemTime) -> Result<Policy, PolicyFileError> {
    match check_policy(&stored) {
        Ok(()) => {
            let update_time = stored.update_time.and_then(|time| SystemTime::try_from(time).ok());
            Ok(complete(stored, update_time.unwrap_or(now)))
        }
        Err(violations) => {
            Err(PolicyFileError::Invalid { service: shortened(&stored.service), problem: violations.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_room_for_a_policy_of_each_service_and_for_no_more() {
        let timeout = |service: String, seconds| Policy {
            service,
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Policy::default()
        };
        let now = SystemTime::now();
        let full = (0..MAX_POLICIES).map(|n| (n.to_string(), complete(timeout(n.to_string(), 1), now)));
        let store = PolicyStore(Arc::new(Shared { latest: Mutex::new(full.collect()), ..Shared::default() }));
        let turn = store.turn().await;

        assert_eq!(turn.set(timeout("order".into(), 1), now), Err(PolicyError::TooMany));

        assert!(turn.set(timeout("0".into(), 2), now).expect("it takes no room").1);
        turn.set(Policy { service: "0".into(), ..Policy::default() }, now).expect("it makes room");
        assert!(turn.set(timeout("order".into(), 1), now).is_ok());
        assert_eq!(store.all().len(), MAX_POLICIES);
    }
}
