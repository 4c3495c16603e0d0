//! The last endpoint sets on disk, each with its policy, so that a client that starts while the registry is away finds its services.
//!
//! One file per service, replaced whole. Written by a task of its own, off every hot path; the newest set wins, and sets
//! in between may be skipped. A file that cannot be read is as good as none. Whoever may write to the folder may write
//! anything: a policy is checked as if the registry had said it, and one that does not pass is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{fs, sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::meshwork::registry::v1::{self as contract, IdempotentMethod, Instance, InstanceStatus},
    endpoint_set::{EndpointSet, Endpoints},
    policy::Policy,
    rpc::ProtobufJson,
};

/// Between two writes: a rolling restart changes a set many times, and only the last is of use.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// The folder of endpoint sets. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    json: ProtobufJson,
    /// Sets that are not written yet, the latest of each service.
    pending: Mutex<BTreeMap<Arc<str>, EndpointSet>>,
    changed: Notify,
}

impl Cache {
    /// A cache in `folder`, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Shared { folder, json: ProtobufJson::new(), pending: Mutex::default(), changed: Notify::new() }))
    }

    /// What was last known of a service, if anything.
    pub(super) async fn load(&self, service: &str) -> Option<(Endpoints, Policy)> {
        let path = self.path(service);
        let found = match fs::read(&path).await {
            Ok(text) => serde_json::from_slice::<File>(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
        };
        match found {
            Ok(file) if file.service == service => {
                let policy = file.policy(&self.0.json).unwrap_or_else(|problem| {
                    tracing::warn!(path = %path.display(), problem, "the last policy is left out");
                    Policy::default()
                });
                Some((file.endpoints(), policy))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last endpoint set cannot be read");
                None
            }
        }
    }

    /// Will be written soon.
    pub(super) fn store(&self, set: &EndpointSet) {
        let mut pending = self.0.pending.lock().expect("no code panics while it holds this lock");
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
        let pending = std::mem::take(&mut *self.0.pending.lock().expect("no code panics while it holds this lock"));
        for (service, set) in pending {
            if let Err(error) = self.write(&set).await {
                tracing::warn!(%service, %error, "the endpoint set cannot be written");
            }
        }
    }

    async fn write(&self, set: &EndpointSet) -> io::Result<()> {
        let path = self.path(&set.service);
        let text = serde_json::to_vec_pretty(&File::new(set, &self.0.json))?;
        fs::create_dir_all(&self.0.folder).await?;
        // Of its own for every process, so that two that share the folder do not write into each other's.
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        fs::write(&draft, text).await?;
        fs::rename(&draft, &path).await
    }

    fn path(&self, service: &str) -> PathBuf {
        // Names come from the caller's program: only a registry's names make a path.
        let safe: String = service
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '_' })
            .collect();
        Path::new(&self.0.folder).join(format!("{safe}.json"))
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    service: String,
    instances: Vec<Entry>,
    /// The contract's, as protobuf JSON, if it is not the default.
    #[serde(default)]
    policy: Option<Value>,
}

/// An instance, as far as it is of use without a registry.
#[derive(Serialize, Deserialize)]
struct Entry {
    instance_id: String,
    address: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Method and level.
    #[serde(default)]
    idempotent_methods: Vec<(String, i32)>,
    /// Those of them that do not stream.
    #[serde(default)]
    unary_methods: BTreeSet<String>,
    status: i32,
}

impl File {
    fn new(set: &EndpointSet, json: &ProtobufJson) -> Self {
        let policy = (*set.policy != Policy::default()).then(|| json.value(&set.policy.message(&set.service)));
        Self {
            service: set.service.to_string(),
            instances: set.endpoints.values().map(|instance| Entry::new(instance)).collect(),
            policy,
        }
    }

    fn policy(&self, json: &ProtobufJson) -> Result<Policy, String> {
        let Some(policy) = self.policy.clone() else { return Ok(Policy::default()) };
        let policy = json.read_value::<contract::Policy>(policy).map_err(|error| error.to_string())?;
        Policy::try_from(&policy).map_err(|violations| violations.to_string())
    }

    fn endpoints(self) -> Endpoints {
        let Self { service, instances, .. } = self;
        let instance = |entry: Entry| (entry.instance_id.clone(), Arc::new(entry.instance(&service)));
        Arc::new(instances.into_iter().map(instance).collect())
    }
}

impl Entry {
    fn new(instance: &Instance) -> Self {
        let methods = &instance.idempotent_methods;
        Self {
            instance_id: instance.instance_id.clone(),
            address: instance.address.clone(),
            version: instance.version.clone(),
            zone: instance.zone.clone(),
            weight: instance.weight,
            labels: instance.labels.clone().into_iter().collect(),
            idempotent_methods: methods.iter().map(|m| (m.method.clone(), m.idempotency_level)).collect(),
            unary_methods: methods.iter().filter(|m| m.unary).map(|m| m.method.clone()).collect(),
            status: instance.status,
        }
    }

    fn instance(self, service: &str) -> Instance {
        let methods = self.idempotent_methods.into_iter();
        Instance {
            service: service.to_owned(),
            instance_id: self.instance_id,
            address: self.address,
            version: self.version,
            zone: self.zone,
            weight: self.weight,
            labels: self.labels.into_iter().collect(),
            grpc_services: Vec::new(),
            idempotent_methods: methods
                .map(|(method, idempotency_level)| {
                    let unary = self.unary_methods.contains(&method);
                    IdempotentMethod { method, idempotency_level, unary }
                })
                .collect(),
            status: InstanceStatus::try_from(self.status).unwrap_or_default().into(),
            ..Instance::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SplitPolicy;

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
        let endpoints = ids.iter().map(|id| ((*id).to_owned(), Arc::new(instance(id)))).collect();
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
        assert_eq!(again.load("order").await, Some((set(&["a", "b"]).endpoints, Policy::clone(&policy()))));
        assert_eq!(again.load("customer").await, None);
        let files = std::fs::read_dir(folder.path().join("sets")).expect("made").count();
        assert_eq!(files, 1, "no drafts are left");
    }

    #[tokio::test]
    async fn a_broken_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("order.json"), "{\"service\": \"ord").expect("written");
        assert_eq!(Cache::new(folder.path().to_owned()).load("order").await, None);
    }

    #[tokio::test]
    async fn a_policy_that_a_registry_could_not_have_said_is_left_out_and_the_endpoints_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().to_owned());
        for (policy, good) in [
            (r#"{"retry": {"maxAttempts": 10}}"#, true),
            (r#"{"retry": {"maxAttempts": 4000000000}}"#, false),
            (r#"{"retry": {"backoffMin": "300000000000s", "backoffMax": "300000000000s"}}"#, false),
            (r#"{"ejection": {"baseTime": "-1s"}}"#, false),
            (r#"{"split": {"weights": {"v1": 0}}}"#, false),
            // What the version before has written.
            (r#"{"timeout": {"secs": 2, "nanos": 0}, "retry": {"max_attempts": 4000000000}}"#, false),
        ] {
            let instances = r#"[{"instance_id": "a", "address": "a:1", "status": 2}]"#;
            let text = format!(r#"{{"service": "order", "instances": {instances}, "policy": {policy}}}"#);
            std::fs::write(folder.path().join("order.json"), text).expect("written");

            let (endpoints, loaded) = cache.load("order").await.expect(policy);

            assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["a"]);
            assert_eq!(loaded != Policy::default(), good, "{policy}");
        }
    }

    #[tokio::test]
    async fn a_file_of_a_version_without_policies_is_read_with_the_default() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("order.json"), r#"{"service": "order", "instances": []}"#).expect("written");
        let loaded = Cache::new(folder.path().to_owned()).load("order").await;
        assert_eq!(loaded, Some((Endpoints::default(), Policy::default())));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let cache = Cache::new("/cache".into());
        assert_eq!(cache.path("../../etc/passwd"), Path::new("/cache/______etc_passwd.json"));
    }
}
