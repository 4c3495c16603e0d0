//! The last endpoint sets on disk, each with its policy and authorization rules, so that a client that starts while the registry is unreachable finds its services.
//!
//! One file per service, replaced whole: a `ServiceInstances` of the contract, with its length before it. Written by a task of
//! its own, off every hot path; the newest set wins, and sets in between may be skipped. A file that cannot be read, or is of
//! another process, is ignored. A user who may write to the folder may write anything: what is read is bounded, a policy is
//! checked as if the registry had said it, and one that does not pass is left out.
//!
//! That a service has no authorization rules is written too: a file that says nothing about them, as one of an earlier release, leaves
//! them unknown.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::fold::Earlier;
use crate::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{AuthorizationPolicy, Instance, ServiceInstances},
    endpoint_set::EndpointSet,
    log_limit::LogLimit,
    policy::Policy,
};

/// Between two writes: a rolling restart changes a set many times, and only the last is of use.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a file that is read: the 10,000 instances that a registry holds at most, at 3 KiB each.
const MAX_BYTES: u64 = 32 << 20;

/// The folder of endpoint sets. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Sets that are not written yet, the latest of each service.
    pending: Mutex<BTreeMap<Arc<str>, EndpointSet>>,
    changed: Notify,
    /// On a full disk each change of a service fails.
    not_written: LogLimit,
}

impl Cache {
    /// A cache in `folder`, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Shared {
            folder,
            pending: Mutex::default(),
            changed: Notify::new(),
            not_written: LogLimit::new(1),
        }))
    }

    /// What was last known of a service, if anything.
    pub(super) async fn load(&self, service: &str) -> Option<Earlier> {
        let path = self.path(service);
        let file = path.clone();
        let found = spawn_blocking(move || read(&file)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let set = match found {
            Ok(set) => set.filter(|set| set.service == service)?,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last endpoint set cannot be read");
                return None;
            }
        };
        let policy = set.policy.as_ref().map_or_else(|| Ok(Policy::default()), Policy::try_from);
        let policy = policy.unwrap_or_else(|problem| {
            tracing::warn!(path = %path.display(), %problem, "the last policy was ignored");
            Policy::default()
        });
        let named = |told| AuthorizationPolicy { service: service.to_owned(), ..told };
        let authorization = set.authorization.map_or(Ok(Knowledge::Unknown), |told| Knowledge::new(&named(told)));
        let authorization = authorization.unwrap_or_else(|problem| {
            tracing::warn!(path = %path.display(), %problem, "the last authorization rules were ignored: they are unknown now");
            Knowledge::Unknown
        });
        let named = |instance| Instance { service: service.to_owned(), ..instance };
        let endpoints = set.instances.into_iter().map(named);
        let endpoints = endpoints.map(|instance| (instance.instance_id.as_str().into(), instance.into())).collect();
        Some(Earlier { endpoints: Arc::new(endpoints), policy, authorization })
    }

    /// Will be written soon.
    pub(super) fn store(&self, set: &EndpointSet) {
        let mut pending = self.0.pending.lock();
        pending.insert(set.service.clone(), set.clone());
        drop(pending);
        self.0.changed.notify_one();
    }

    /// Writes what changes until `stop`, and what is left then.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.0.changed.notified() => {}
            }
            self.write_pending().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(WRITE_PAUSE) => {}
            }
        }
        self.write_pending().await;
    }

    async fn write_pending(&self) {
        let pending = std::mem::take(&mut *self.0.pending.lock());
        for (service, set) in pending {
            let path = self.path(&service);
            let written = spawn_blocking(move || write(&path, &message(&set))).await;
            if let Err(error) = written.unwrap_or_else(|panic| Err(io::Error::other(panic)))
                && let Some(left_out) = self.0.not_written.pass()
            {
                tracing::warn!(%service, %error, "the endpoint set cannot be written{left_out}");
            }
        }
    }

    fn path(&self, service: &str) -> PathBuf {
        // Names come from the caller's program: only a registry's names make a path.
        let safe: String = service
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '_' })
            .collect();
        self.0.folder.join(format!("{safe}.endpoints"))
    }
}

/// What is kept of a set. The default policy is not: a later version may have a better one.
fn message(set: &EndpointSet) -> ServiceInstances {
    let policy = (*set.policy != Policy::default()).then(|| set.policy.message(&set.service));
    let instances = set.endpoints.values().map(|instance| Instance::clone(instance)).collect();
    let authorization = set.authorization.message(&set.service);
    ServiceInstances { service: set.service.to_string(), known: set.known, instances, policy, authorization }
}

/// The message in a file; `None` if there is no file.
fn read(path: &Path) -> io::Result<Option<ServiceInstances>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    // The length finds a file that was cut, also at the end of a field.
    let length = prost::decode_length_delimiter(&mut rest)?;
    if length != rest.len() {
        let problem = format!("{} bytes follow where {length} were announced", rest.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Some(ServiceInstances::decode(rest)?))
}

fn write(path: &Path, set: &ServiceInstances) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a file in the folder"))?;
    // Of its own for every write: processes, and meshes of one process, may share the folder.
    let draft = path.with_extension(format!("{}.draft", crate::id::new_id()));
    fs::write(&draft, set.encode_length_delimited_to_vec())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::meshwork::registry::v1::{self as contract, IdempotentMethod, InstanceStatus},
        policy::SplitPolicy,
    };

    fn set(ids: &[&str]) -> EndpointSet {
        let instance = |id: &&str| Instance {
            service: "order".into(),
            instance_id: (*id).into(),
            address: format!("{id}:1"),
            weight: 7,
            idempotent_methods: vec![
                IdempotentMethod { method: "s/M".into(), idempotency_level: 2, unary: true },
                IdempotentMethod { method: "s/N".into(), idempotency_level: 1, unary: false },
            ],
            status: InstanceStatus::Serving.into(),
            ..Instance::default()
        };
        let endpoints = ids.iter().map(|id| ((*id).into(), Arc::new(instance(id)))).collect();
        EndpointSet { endpoints: Arc::new(endpoints), known: true, policy: policy(), ..EndpointSet::unknown("order") }
    }

    fn policy() -> Arc<Policy> {
        let split = SplitPolicy { weights: BTreeMap::from([("v1".into(), 95), ("v2".into(), 5)]) };
        Arc::new(Policy { timeout: Some(Duration::from_millis(2500)), split: Some(split), ..Policy::default() })
    }

    #[tokio::test]
    async fn the_last_set_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("sets"));
        cache.store(&set(&["a"]));
        cache.store(&set(&["a", "b"]));
        let stop = CancellationToken::new();
        stop.cancel();
        cache.run(stop).await;

        let again = Cache::new(folder.path().join("sets"));
        let EndpointSet { endpoints, authorization, .. } = set(&["a", "b"]);
        let earlier = Earlier { endpoints, policy: Policy::clone(&policy()), authorization };
        assert_eq!(again.load("order").await, Some(earlier));
        assert_eq!(again.load("customer").await, None);
        let files = std::fs::read_dir(folder.path().join("sets")).expect("made").count();
        assert_eq!(files, 1, "no drafts are left");
    }

    #[test]
    fn meshes_of_one_process_may_write_the_same_set_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("order.endpoints");
        let written = std::thread::scope(|threads| {
            let begun: Vec<_> = (0..8)
                .map(|_| threads.spawn(|| (0..50).try_for_each(|_| write(&path, &message(&set(&["a"]))))))
                .collect();
            begun.into_iter().all(|thread| thread.join().expect("no panic").is_ok())
        });
        assert!(written, "none takes another's draft");
    }

    /// A folder where the file of `order` holds these bytes.
    fn holding(bytes: &[u8]) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("order.endpoints"), bytes).expect("written");
        let cache = Cache::new(folder.path().to_owned());
        (folder, cache)
    }

    #[tokio::test]
    async fn a_broken_or_foreign_file_is_as_good_as_none() {
        let whole = message(&set(&["a"])).encode_length_delimited_to_vec();
        let other = ServiceInstances { service: "customer".into(), ..Default::default() };
        for bytes in [
            &[][..],
            &whole[..whole.len() - 1],
            &whole[1..],
            b"{\"service\": \"order\", \"instances\": []}",
            &[whole.as_slice(), b"more"].concat(),
            &[0xff; 100],
            &other.encode_length_delimited_to_vec(),
        ] {
            assert_eq!(holding(bytes).1.load("order").await, None, "{bytes:?}");
        }
        assert!(holding(&whole).1.load("order").await.is_some());
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_registry_could_have_said() {
        let (folder, cache) = holding(&[]);
        let file = File::options().write(true).open(folder.path().join("order.endpoints")).expect("there");
        // A hole: it takes no room on the disk.
        file.set_len(MAX_BYTES * 1000).expect("made larger");
        assert_eq!(cache.load("order").await, None);
    }

    #[tokio::test]
    async fn a_policy_that_a_registry_could_not_have_said_is_left_out_and_the_endpoints_stay() {
        let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let retry = |retry| contract::Policy { retry: Some(retry), ..Default::default() };
        let attempts =
            |max_attempts| retry(contract::RetryPolicy { max_attempts: Some(max_attempts), ..Default::default() });
        let long = contract::RetryPolicy {
            backoff_min: second(300_000_000_000),
            backoff_max: second(300_000_000_000),
            ..Default::default()
        };
        let ejection = contract::EjectionPolicy { base_time: second(-1), ..Default::default() };
        let split = contract::SplitPolicy { weights: [("v1".into(), 0)].into() };
        for (policy, good) in [
            (attempts(10), true),
            (attempts(4_000_000_000), false),
            (retry(long), false),
            (contract::Policy { ejection: Some(ejection), ..Default::default() }, false),
            (contract::Policy { split: Some(split), ..Default::default() }, false),
        ] {
            let kept = ServiceInstances { policy: Some(policy.clone()), ..message(&set(&["a"])) };
            let (_folder, cache) = holding(&kept.encode_length_delimited_to_vec());

            let loaded = cache.load("order").await.expect("the endpoints");

            assert_eq!(loaded.endpoints.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a"]);
            assert_eq!(loaded.policy != Policy::default(), good, "{policy:?}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let cache = Cache::new("/cache".into());
        assert_eq!(cache.path("../../etc/passwd"), Path::new("/cache/______etc_passwd.endpoints"));
    }

    fn rules(methods: &str) -> AuthorizationPolicy {
        AuthorizationPolicy {
            service: "order".into(),
            allow: vec![contract::AuthorizationRule { callers: vec!["*".into()], methods: vec![methods.into()] }],
            etag: "e".into(),
            update_time: Some(prost_types::Timestamp { seconds: 7, nanos: 8 }),
            ..AuthorizationPolicy::default()
        }
    }

    #[tokio::test]
    async fn that_there_are_no_rules_is_kept_apart_from_that_they_are_unknown() {
        let rules = Knowledge::new(&rules("a.C/*")).expect("good rules");
        let deleted = Knowledge::None { deleted: Some(prost_types::Timestamp { seconds: 7, nanos: 8 }) };
        for known in [Knowledge::Unknown, Knowledge::NEVER_SET, deleted, rules] {
            let set = EndpointSet { authorization: known.clone(), ..set(&["a"]) };
            let (_folder, cache) = holding(&message(&set).encode_length_delimited_to_vec());
            assert_eq!(cache.load("order").await.map(|earlier| earlier.authorization), Some(known));
        }
    }

    #[tokio::test]
    async fn rules_that_a_registry_could_not_have_said_are_unknown_and_of_another_service_are_ours() {
        let load = async |authorization| {
            let kept = ServiceInstances { authorization: Some(authorization), ..message(&set(&["a"])) };
            let (_folder, cache) = holding(&kept.encode_length_delimited_to_vec());
            cache.load("order").await.expect("the endpoints").authorization
        };
        assert_eq!(load(rules("*")).await, Knowledge::Unknown, "not: none");
        let other = AuthorizationPolicy { service: "customer".into(), ..rules("a.C/*") };
        let found = load(other).await;
        assert_eq!(found.rules().map(|rules| rules.message().service.as_str()), Some("order"));
    }
}
