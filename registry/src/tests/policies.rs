//! What the policies promise.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use meshwork::contract::meshwork::registry::v1::{
    GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse, Policy, RetryPolicy, SetPolicyRequest, SplitPolicy,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{requests::fields, *};
use crate::{limits::MAX_TOMBSTONES, policies::PolicyFileError};

impl Mesh {
    async fn restart(file: &Path) -> Self {
        Self::restart_in(TlsMode::Plain, file).await
    }

    async fn try_set(&mut self, policy: Policy) -> Result<Policy, Status> {
        let request = SetPolicyRequest { policy: Some(policy) };
        Ok(self.policies.set_policy(request).await?.into_inner())
    }

    async fn set(&mut self, policy: Policy) -> Policy {
        self.try_set(policy).await.expect("a good policy")
    }

    async fn policy(&mut self, service: &str) -> Policy {
        let request = GetPolicyRequest { service: service.into() };
        self.policies.get_policy(request).await.expect("every service has one").into_inner()
    }

    async fn list(&mut self, page_size: i32, page_token: &str) -> ListPoliciesResponse {
        let request = ListPoliciesRequest { page_size, page_token: page_token.into() };
        self.policies.list_policies(request).await.expect("a page").into_inner()
    }
}

impl Watch {
    /// The policies of the next change, each with its timeout.
    async fn policies(&mut self) -> Vec<(String, Option<i64>)> {
        match self.event().await {
            Event::Change(change) => {
                let seconds = |policy: &Policy| policy.timeout.map(|timeout| timeout.seconds);
                change.policies.into_iter().map(|policy| (policy.service.clone(), seconds(&policy))).collect()
            }
            other => panic!("a change was expected, not {other:?}"),
        }
    }
}

fn timeout_of(service: &str, seconds: i64) -> Policy {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    Policy { service: service.into(), timeout, ..Policy::default() }
}

fn nothing(service: &str) -> Policy {
    Policy { service: service.into(), ..Policy::default() }
}

pub(super) fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().expect("every error has an ErrorInfo").reason.clone())
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_there_as_it_was_set_and_listed_by_service() {
    let mut mesh = Mesh::start();
    let weights = [("v1".into(), 95), ("v2".into(), 5)].into();
    let order = Policy { split: Some(SplitPolicy { weights }), ..timeout_of("order", 2) };

    let set = mesh.set(order.clone()).await;

    assert!(!set.etag.is_empty() && set.update_time.is_some());
    assert_eq!(Policy { etag: String::new(), update_time: None, ..set.clone() }, order);
    assert_eq!(mesh.policy("order").await, set);
    let customer = mesh.set(timeout_of("customer", 1)).await;
    let first = mesh.list(1, "").await;
    assert_eq!(first.policies, [customer]);
    let second = mesh.list(1, &first.next_page_token).await;
    assert_eq!((second.policies, second.next_page_token.as_str()), (vec![set], ""));
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_policy_has_the_defaults_and_setting_nothing_brings_them_back() {
    let mut mesh = Mesh::start();
    let none = mesh.policy("order").await;
    assert_eq!(Policy { etag: String::new(), ..none.clone() }, nothing("order"));
    mesh.set(timeout_of("order", 2)).await;

    let hollow = Policy { retry: Some(RetryPolicy::default()), ..nothing("order") };
    assert_eq!(mesh.set(hollow).await, none);

    assert_eq!(mesh.policy("order").await, none);
    assert!(mesh.list(0, "").await.policies.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_does_not_validate_changes_nothing_and_says_which_field() {
    let mut mesh = Mesh::start();
    let good = mesh.set(timeout_of("order", 2)).await;
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    let retry = RetryPolicy { max_attempts: Some(11), ..RetryPolicy::default() };
    let bad = Policy { service: "order".into(), retry: Some(retry), ..timeout_of("order", -1) };

    let refused = mesh.try_set(bad).await.expect_err("it is wrong");

    assert_eq!(fields(&refused), ["policy.timeout", "policy.retry.max_attempts"]);
    assert_eq!(mesh.policy("order").await, good);
    assert!(matches!(watch.event().await, Event::Progress(_)), "clients hear nothing of it");
    for (service, field) in [("", "policy.service"), ("Order", "policy.service")] {
        assert_eq!(fields(&mesh.try_set(nothing(service)).await.expect_err(service)), [field]);
    }
    let missing = mesh.policies.set_policy(SetPolicyRequest::default()).await.expect_err("there is none");
    assert_eq!(fields(&missing), ["policy"]);
    let nameless = mesh.policies.get_policy(GetPolicyRequest::default()).await.expect_err("there is none");
    assert_eq!(fields(&nameless), ["service"]);
}

#[tokio::test(start_paused = true)]
async fn an_etag_lets_only_the_policy_be_replaced_that_it_is_of() {
    let mut mesh = Mesh::start();
    let none = mesh.policy("order").await;
    let with = |seconds, etag: &str| Policy { etag: etag.into(), ..timeout_of("order", seconds) };
    let first = mesh.set(with(1, &none.etag)).await;

    let late = mesh.try_set(with(2, &none.etag)).await.expect_err("it has changed since");
    assert_eq!(reason(&late), (Code::Aborted, "ETAG_MISMATCH".into()));
    assert_eq!(mesh.policy("order").await, first);

    assert_eq!(mesh.set(with(1, &none.etag)).await, first, "what is there already is no conflict");
    let second = mesh.set(with(2, &first.etag)).await;
    assert_ne!(first.etag, second.etag);
    mesh.set(with(3, "")).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_concurrent_changes_of_one_policy_one_is_refused() {
    let mut mesh = Mesh::start();
    let etag = mesh.policy("order").await.etag;
    let (mut one, mut other) = (mesh.policies.clone(), mesh.policies.clone());
    let with =
        |seconds| SetPolicyRequest { policy: Some(Policy { etag: etag.clone(), ..timeout_of("order", seconds) }) };
    let (one, other) = tokio::join!(one.set_policy(with(1)), other.set_policy(with(2)));
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|set| **set).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn watchers_get_the_policy_with_the_snapshot_and_its_changes_as_they_happen() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    mesh.set(timeout_of("order", 1)).await;
    let mut watch = mesh.watch(&["order", "customer"]).await;
    let first = watch.response().await;
    let Some(Event::Snapshot(snapshot)) = first.event else { panic!("a snapshot comes first") };
    let policies: Vec<_> = snapshot.services.iter().map(|service| service.policy.clone()).collect();
    assert_eq!(policies, [None, Some(mesh.policy("order").await)]);

    mesh.set(timeout_of("customer", 2)).await;
    let second = watch.response().await;
    assert_eq!((second.epoch, second.revision), (first.epoch, first.revision + 1));
    mesh.set(timeout_of("customer", 3)).await;
    assert_eq!(watch.policies().await, [("customer".into(), Some(3))]);
    mesh.set(nothing("customer")).await;
    assert_eq!(watch.policies().await, [("customer".into(), None)]);
    let snapshot = mesh.watch(&["customer"]).await.snapshot().await;
    assert_eq!(services(&snapshot), [("customer", false, vec![])], "a policy makes no service known");
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_gets_the_latest_policy_once_and_none_of_other_services() {
    let mut mesh = Mesh::start();
    let (mut slow, mut other) = (mesh.watch(&["order"]).await, mesh.watch(&["customer"]).await);
    slow.snapshot().await;
    other.snapshot().await;
    for seconds in 1..50 {
        mesh.set(timeout_of("order", seconds)).await;
    }
    assert_eq!(slow.policies().await, [("order".into(), Some(49))]);
    assert!(matches!(slow.event().await, Event::Progress(_)), "nothing was queued behind it");
    assert!(matches!(other.event().await, Event::Progress(_)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_resumes_gets_the_policies_that_it_missed_and_only_those() {
    let mut mesh = Mesh::start();
    mesh.set(timeout_of("order", 1)).await;
    let resume = point(&mesh.watch(&[]).await.response().await);
    mesh.set(timeout_of("customer", 2)).await;
    assert_eq!(mesh.watch_from(&[], resume.clone()).await.policies().await, [("customer".into(), Some(2))]);
    assert_eq!(mesh.watch_from(&["order"], resume.clone()).await.policies().await, []);

    for n in 0..=MAX_TOMBSTONES {
        let service = n.to_string();
        mesh.set(timeout_of(&service, 1)).await;
        mesh.set(nothing(&service)).await;
    }
    let snapshot = mesh.watch_from(&[], resume).await.snapshot().await;
    let names: Vec<_> = snapshot.services.iter().map(|service| service.service.as_str()).collect();
    assert_eq!(names, ["customer", "order"], "what was taken back is forgotten at last");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_registry_loses_no_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("made/policies.json");
    let mut mesh = Mesh::restart(&file).await;
    let order = mesh.set(timeout_of("order", 2)).await;
    mesh.set(timeout_of("customer", 1)).await;
    mesh.set(nothing("customer")).await;
    assert!(matches!(PolicyStore::open(&file).await, Err(PolicyFileError::InUse)), "it is of one registry alone");
    mesh.stop().await;

    let mut mesh = Mesh::restart(&file).await;

    assert_eq!(mesh.list(0, "").await.policies, std::slice::from_ref(&order));
    let snapshot = mesh.watch(&["order"]).await.snapshot().await;
    assert_eq!(snapshot.services[0].policy, Some(order));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_stored_is_not_in_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let mut mesh = Mesh::restart(&file).await;
    let good = mesh.set(timeout_of("order", 1)).await;
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    // In the way of the draft.
    fs::create_dir(folder.path().join("policies.json.draft")).expect("made");

    let refused = mesh.try_set(timeout_of("order", 2)).await.expect_err("the disk does not take it");

    assert_eq!(reason(&refused), (Code::Unavailable, "POLICY_NOT_STORED".into()));
    assert_eq!(mesh.policy("order").await, good);
    assert!(matches!(watch.event().await, Event::Progress(_)));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_written_by_hand_is_checked_and_completed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    for (text, says) in [
        ("{", "is not a list of policies (line 1, column 1: "),
        (
            r#"{"policies": [{"service": "order", "timeout": "-1s"}]}"#,
            "the policy of \"order\" cannot be used: policy.timeout",
        ),
        (r#"{"policies": [{}]}"#, "policy.service: is required"),
        (
            r#"{"policies": [{"service": "order", "timeout": "1s"}, {"service": "order", "timeout": "2s"}]}"#,
            "has more than one policy of \"order\"",
        ),
        (r#"{"policies": [{"service": "order"}, {"service": "order"}]}"#, "has more than one policy of \"order\""),
        (r#"{"policies": [{"service": "order"}], "policies": []}"#, "has the field \"policies\" twice"),
        (
            &format!(r#"{{"policies": [{}{{}}]}}"#, r#"{"service": "order"},"#.repeat(4_096)),
            "has more than 4,096 policies",
        ),
        (&format!(r#"{{"policies": [{{"service": "{}"}}]}}"#, "x".repeat(1 << 20)), "cannot be used: policy.service"),
        (&" ".repeat(33 << 20), "is larger than 32 MiB"),
    ] {
        fs::write(&file, text).expect("written");
        let error = PolicyStore::open(&file).await.expect_err(says).to_string();
        assert!(error.contains(says) && error.len() < 300, "{says}: {}", error.len());
    }
    let text = r#"{"policies": [{"service": "order", "timeout": "2s"}, {"service": "customer", "retry": {}}]}"#;
    fs::write(&file, text).expect("written");

    let mut mesh = Mesh::restart(&file).await;

    let listed = mesh.list(0, "").await.policies;
    assert_eq!(listed.iter().map(|policy| policy.service.as_str()).collect::<Vec<_>>(), ["order"]);
    assert_eq!(mesh.set(timeout_of("order", 2)).await, listed[0], "it has the etag of one that was set");
}

#[tokio::test(start_paused = true)]
async fn a_link_stays_and_the_file_that_it_leads_to_is_replaced_with_its_permissions() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, there) = (folder.path().join("policies.json"), folder.path().join("there"));
    fs::create_dir(&there).expect("made");
    symlink("middle.json", &file).expect("linked");
    symlink("there/data.json", folder.path().join("middle.json")).expect("linked");
    let target = there.join("data.json");
    // First it leads nowhere yet, then to a file.
    for seconds in [1, 2] {
        let mut mesh = Mesh::restart(&file).await;
        mesh.set(timeout_of("order", seconds)).await;
        mesh.stop().await;
        assert_eq!(fs::read_link(&file).expect("it is a link"), Path::new("middle.json"));
        let text = fs::read_to_string(&target).expect("it was made");
        assert!(target.is_file() && text.contains(&format!("\"{seconds}s\"")), "{text}");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("set");
    }
    let mut mesh = Mesh::restart(&file).await;
    assert_eq!(mesh.policy("order").await.timeout.map(|timeout| timeout.seconds), Some(2));
    assert_eq!(fs::metadata(&target).expect("it is there").permissions().mode() & 0o777, 0o600);
    let mut there: Vec<_> =
        fs::read_dir(there).expect("a folder").map(|entry| entry.expect("read").file_name()).collect();
    there.sort();
    assert_eq!(there, ["data.json", "data.json.lock"], "no draft is left");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_replaced_is_found_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder.json")).expect("made");
    symlink("gone/policies.json", at("gone.json")).expect("linked");
    symlink("circle.json", at("circle.json")).expect("linked");
    // In the way of the draft: as of a folder that takes no file, also for root.
    fs::create_dir(at("blocked.json.draft")).expect("made");
    fs::write(at("blocked.json"), "{}").expect("written");
    fs::create_dir(at("new.json.draft")).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket.json")).expect("made");
    for (name, says) in [
        ("folder.json", "is not a regular file"),
        ("socket.json", "is not a regular file"),
        ("gone.json", "is a symbolic link to"),
        ("circle.json", "is a symbolic link to"),
        ("blocked.json", "cannot be written"),
        ("new.json", "cannot be written"),
    ] {
        let error = PolicyStore::open(&at(name)).await.expect_err(name).to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(at("blocked.json")).expect("it is there"), "{}");
}

/// Only root may mount, and not in every container.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_mounted_alone_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, source) = (folder.path().join("policies.json"), folder.path().join("source.json"));
    for path in [&file, &source] {
        fs::write(path, "{}").expect("written");
    }
    let mount = |arguments: &[&std::ffi::OsStr]| {
        let done =
            std::process::Command::new(arguments[0]).args(&arguments[1..]).stderr(std::process::Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !mount(&["mount".as_ref(), "--bind".as_ref(), source.as_ref(), file.as_ref()]) {
        eprintln!("SKIPPED: a file cannot be mounted here");
        return;
    }
    let refused = PolicyStore::open(&file).await;
    assert!(mount(&["umount".as_ref(), file.as_ref()]), "unmounted");
    assert!(matches!(refused, Err(PolicyFileError::Mounted)), "{refused:?}");
}
