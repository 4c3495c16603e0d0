//! What the authorization policies promise.

use std::{fs, ops::Range, os::unix::fs::symlink};

use meshwork::contract::meshwork::registry::v1::{
    AuthorizationPolicy, AuthorizationRule, Binding, DeleteAuthorizationPolicyRequest, GetAuthorizationPolicyRequest,
    ListAuthorizationPoliciesRequest, ListAuthorizationPoliciesResponse, SetAuthorizationPolicyRequest,
    SetBindingRequest,
};
use prost::Message as _;
use tonic::Code;

use super::{
    identities::{ANONYMOUS, OPERATOR, ORDER},
    policies::reason,
    requests::fields,
    *,
};
use crate::limits::MAX_AUTHORIZATIONS;

/// A policy with one rule.
pub(super) fn rules(service: &str, callers: &[&str], methods: &[&str]) -> AuthorizationPolicy {
    AuthorizationPolicy { service: service.into(), allow: vec![rule(callers, methods)], ..Default::default() }
}

fn rule(callers: &[&str], methods: &[&str]) -> AuthorizationRule {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    AuthorizationRule { callers: owned(callers), methods: owned(methods) }
}

/// The policy as it was asked for.
fn plain(policy: &AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { etag: String::new(), update_time: None, ..policy.clone() }
}

fn time(policy: &AuthorizationPolicy) -> (i64, i32) {
    policy.update_time.map(|time| (time.seconds, time.nanos)).expect("set or deleted")
}

impl Mesh {
    async fn try_rule(&mut self, policy: AuthorizationPolicy) -> Result<AuthorizationPolicy, Status> {
        let request = SetAuthorizationPolicyRequest { policy: Some(policy) };
        Ok(self.authorizations.set_authorization_policy(request).await?.into_inner())
    }

    async fn rule(&mut self, policy: AuthorizationPolicy) -> AuthorizationPolicy {
        self.try_rule(policy).await.expect("a good policy")
    }

    async fn unrule(&mut self, service: &str, etag: &str) -> Result<AuthorizationPolicy, Status> {
        let request = DeleteAuthorizationPolicyRequest { service: service.into(), etag: etag.into() };
        Ok(self.authorizations.delete_authorization_policy(request).await?.into_inner())
    }

    async fn rules(&mut self, service: &str) -> AuthorizationPolicy {
        let request = GetAuthorizationPolicyRequest { service: service.into() };
        self.authorizations.get_authorization_policy(request).await.expect("every service has one").into_inner()
    }

    async fn list_rules(&mut self, page_size: i32, page_token: &str) -> ListAuthorizationPoliciesResponse {
        let request = ListAuthorizationPoliciesRequest { page_size, page_token: page_token.into() };
        self.authorizations.list_authorization_policies(request).await.expect("a page").into_inner()
    }
}

impl Watch {
    /// The authorization policies of the next change.
    async fn authorizations(&mut self) -> Vec<AuthorizationPolicy> {
        match self.event().await {
            Event::Change(change) => change.authorizations,
            other => panic!("a change was expected, not {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rules_are_there_as_they_were_set_and_listed_by_service() {
    let mut mesh = Mesh::start();
    let order = AuthorizationPolicy {
        deny: vec![rule(&["anonymous"], &["a.B/Delete"])],
        subject_callers: vec!["service/gateway".into()],
        ..rules("order", &["service/query", "operator/*"], &["a.B/*"])
    };

    let set = mesh.rule(order.clone()).await;

    assert!(!set.etag.is_empty() && set.update_time.is_some());
    assert_eq!(plain(&set), order);
    assert_eq!(mesh.rules("order").await, set);
    let customer = mesh.rule(rules("customer", &["*"], &["a.C/*"])).await;
    let deleted = mesh.rule(rules("deleted", &["*"], &["a.C/*"])).await;
    mesh.unrule("deleted", &deleted.etag).await.expect("it is there");
    let first = mesh.list_rules(1, "").await;
    assert_eq!(first.policies, [customer]);
    let second = mesh.list_rules(1, &first.next_page_token).await;
    assert_eq!((second.policies, second.next_page_token.as_str()), (vec![set], ""));
}

#[tokio::test(start_paused = true)]
async fn the_last_rule_is_removed_only_by_a_deletion_that_names_the_policy() {
    let mut mesh = Mesh::start();
    let none = mesh.rules("order").await;
    assert_eq!(
        (plain(&none), none.update_time),
        (AuthorizationPolicy { service: "order".into(), ..plain(&none) }, None)
    );
    let set = mesh.rule(rules("order", &["*"], &["a.B/*"])).await;

    let nothing = AuthorizationPolicy { service: "order".into(), ..AuthorizationPolicy::default() };
    let refused = mesh.try_rule(nothing).await.expect_err("it would open everything");
    assert_eq!(fields(&refused), ["policy.allow"]);
    assert!(refused.message().contains("delete the policy"), "{refused}");
    assert_eq!(fields(&mesh.unrule("order", "").await.expect_err("which?")), ["etag"]);
    assert_eq!(fields(&mesh.unrule("Order", "x").await.expect_err("no name")), ["service"]);
    let late = mesh.unrule("order", "another").await.expect_err("it is another");
    assert_eq!(reason(&late), (Code::Aborted, "ETAG_MISMATCH".into()));
    assert_eq!(mesh.rules("order").await, set);

    let deleted = mesh.unrule("order", &set.etag).await.expect("it is that one");
    assert_eq!((plain(&deleted), &deleted.etag), (plain(&none), &none.etag));
    assert!(time(&deleted) > time(&set));
    assert_eq!(mesh.rules("order").await, deleted, "a deletion is remembered");
    let again = mesh.unrule("order", &set.etag).await.expect("a call may be repeated");
    assert!(time(&again) > time(&deleted));
}

#[tokio::test(start_paused = true)]
async fn an_etag_lets_only_the_rules_be_replaced_that_it_is_of() {
    let mut mesh = Mesh::start();
    let with =
        |caller: &str, etag: &str| AuthorizationPolicy { etag: etag.into(), ..rules("order", &[caller], &["a.B/*"]) };
    let none = mesh.rules("order").await;
    let first = mesh.rule(with("service/a", &none.etag)).await;

    let late = mesh.try_rule(with("service/b", &none.etag)).await.expect_err("it has changed since");
    assert_eq!(reason(&late), (Code::Aborted, "ETAG_MISMATCH".into()));
    assert!(late.message().contains("meshwork authz get"), "{late}");
    assert_eq!(mesh.rules("order").await, first);

    let same = mesh.rule(with("service/a", &none.etag)).await;
    assert_eq!(same.etag, first.etag, "what is there already is no conflict");
    assert!(time(&same) > time(&first), "and is the latest word");
    let second = mesh.rule(with("service/b", &first.etag)).await;
    assert_ne!(second.etag, first.etag);
    mesh.rule(with("service/c", "")).await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_no_call_can_match_is_refused_and_changes_nothing() {
    let mut mesh = Mesh::start();
    let RegisterRequest { instance, .. } = request("order", "a");
    let grpc_services = vec!["shop.order.v1.OrderService".into(), "shop.order.v1.AdminService".into()];
    let instance = Instance { grpc_services, ..instance.expect("given") };
    let register = RegisterRequest { instance: Some(instance), ..RegisterRequest::default() };
    mesh.client.register(register).await.expect("there is room");
    mesh.register("silent", "a").await;
    let good = mesh.rule(rules("order", &["*"], &["shop.order.v1.OrderService/Get"])).await;
    let deny = |denied: &[&str]| AuthorizationPolicy {
        deny: vec![rule(&["*"], denied)],
        ..rules("order", &["*"], &["shop.order.v1.OrderService/*"])
    };
    let allow = |methods: &[&str]| rules("order", &["*"], methods);
    for (policy, wrong) in [
        (AuthorizationPolicy { service: "Order".into(), ..allow(&["a.B/*"]) }, "policy.service"),
        (allow(&["shop.order.v1.OrderServce/Get"]), "policy.allow[0].methods[0]"),
        (allow(&["shop.order.v1.OrderService/*", "order.v1.AdminService/*"]), "policy.allow[0].methods[1]"),
        (deny(&["shop.order.v1.OrderServices/Get"]), "policy.deny[0].methods[0]"),
        (allow(&[]), "policy.allow[0].methods"),
        (allow(&["shop.order.v1.OrderService"]), "policy.allow[0].methods[0]"),
        (allow(&["shop.order.v1.*"]), "policy.allow[0].methods[0]"),
        (allow(&["grpc.health.v1.Health/Check"]), "policy.allow[0].methods[0]"),
        (rules("order", &["order"], &["shop.order.v1.OrderService/*"]), "policy.allow[0].callers[0]"),
        (rules("order", &["service/o*"], &["shop.order.v1.OrderService/*"]), "policy.allow[0].callers[0]"),
        (deny(&["shop.order.v1.OrderService/*"]), "policy.allow[0]"),
        (
            AuthorizationPolicy {
                allow: vec![rule(&["*"], &["shop.order.v1.OrderService/Get"]); 2],
                ..allow(&["shop.order.v1.OrderService/Get"])
            },
            "policy.allow[1]",
        ),
    ] {
        let refused = mesh.try_rule(policy).await.expect_err(wrong);
        assert_eq!(fields(&refused), [wrong], "{refused}");
    }
    let refused = mesh.try_rule(allow(&["shop.order.v1.OrderServce/Get"])).await.expect_err("a slip of the pen");
    assert!(refused.message().contains("serves is \"shop.order.v1.OrderService\""), "{refused}");
    assert_eq!(mesh.rules("order").await, good);

    mesh.rule(allow(&["shop.order.v1.OrderService/*", "meshwork.event.v1.EventService/*"])).await;
    mesh.rule(allow(&["shop.order.v1.OrderService/Gte"])).await;
    mesh.rule(rules("customer", &["*"], &["x.Y/*"])).await;
    mesh.rule(rules("silent", &["*"], &["x.Y/*"])).await;
    let missing = SetAuthorizationPolicyRequest::default();
    let missing = mesh.authorizations.set_authorization_policy(missing).await.expect_err("there is none");
    assert_eq!(fields(&missing), ["policy"]);
}

const CUSTOMERS: &str = "shop.customer.v1.CustomerService";
const EVENTS: &str = "meshwork.event.v1.EventService";

impl Mesh {
    /// Registers an instance of customer that has these methods of its gRPC service, which it announces, and of the mesh's.
    async fn customer_with(&mut self, id: &str, methods: &[&str]) -> Lease {
        let RegisterRequest { instance, .. } = request("customer", id);
        let instance = Instance { grpc_services: vec![CUSTOMERS.into()], ..instance.expect("given") };
        let own = methods.iter().map(|method| format!("{CUSTOMERS}/{method}"));
        let methods = own.chain([format!("{EVENTS}/Subscribe"), "grpc.health.v1.Health/Check".into()]).collect();
        let register = RegisterRequest { instance: Some(instance), methods, ..RegisterRequest::default() };
        self.client.register(register).await.expect("there is room").into_inner()
    }

    /// Allows or denies everyone this method of customer.
    async fn customer_rule(&mut self, denies: bool, method: &str) -> Result<(), Status> {
        let policy = match denies {
            false => rules("customer", &["*"], &[method]),
            true => AuthorizationPolicy {
                deny: vec![rule(&["*"], &[method])],
                ..rules("customer", &["*"], &[&format!("{CUSTOMERS}/*")])
            },
        };
        self.try_rule(policy).await.map(drop)
    }

    /// Whether a rule for this method of customer may be set.
    async fn takes(&mut self, method: &str) -> bool {
        self.customer_rule(false, method).await.is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_a_method_that_no_instance_has_is_refused_with_the_nearest_that_one_has() {
    let mut mesh = Mesh::start();
    mesh.customer_with("a", &["CreateCustomer", "GetCustomer"]).await;
    let good = mesh.rule(rules("customer", &["*"], &[&format!("{CUSTOMERS}/GetCustomer")])).await;
    for (wrong, nearest) in [
        (format!("{CUSTOMERS}/GetCustomr"), format!("{CUSTOMERS}/GetCustomer")),
        (format!("{CUSTOMERS}/getCustomer"), format!("{CUSTOMERS}/GetCustomer")),
        (format!("{CUSTOMERS}/CreateCustomers"), format!("{CUSTOMERS}/CreateCustomer")),
        (format!("{EVENTS}/Subscribed"), format!("{EVENTS}/Subscribe")),
    ] {
        for (denies, field) in [(false, "policy.allow[0].methods[0]"), (true, "policy.deny[0].methods[0]")] {
            let refused = mesh.customer_rule(denies, &wrong).await.expect_err(&wrong);
            assert_eq!(fields(&refused), [field], "{refused}");
            let says = format!(
                "{field}: no instance of customer serves {wrong:?}; the nearest that one serves is {nearest:?}"
            );
            assert_eq!(refused.message(), says);
        }
    }
    let long =
        mesh.customer_rule(false, &format!("{CUSTOMERS}/{}", "x".repeat(1000))).await.expect_err("no such method");
    assert!(long.message().contains("xxx...\"") && long.message().len() < 300, "{long}");
    assert_eq!(mesh.rules("customer").await, good);
    assert!(mesh.takes(&format!("{CUSTOMERS}/*")).await);
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_a_service_of_the_mesh_is_refused_if_instances_have_told_methods_and_none_of_it() {
    let mut mesh = Mesh::start();
    let wrong = ["meshwork.event.v1.EventServise/*", "meshwork.registry.v1.RegistryService/Watch", "meshwork.X/*"];
    mesh.customer_with("a", &["GetCustomer"]).await;

    for name in wrong {
        for denies in [false, true] {
            let refused = mesh.customer_rule(denies, name).await.expect_err(name);
            let service = name.split('/').next().unwrap_or_default();
            assert!(refused.message().contains(&format!("no instance of customer serves {service:?}")), "{refused}");
        }
    }
    let refused = mesh.customer_rule(false, wrong[0]).await.expect_err("a slip of the pen");
    assert!(refused.message().ends_with(&format!("serves is {EVENTS:?}")), "{refused}");
    for name in [format!("{EVENTS}/*"), format!("{EVENTS}/Subscribe")] {
        assert!(mesh.takes(&name).await, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_instances_have_told_nothing_about_is_unknown_and_rules_for_it_are_taken() {
    let mut mesh = Mesh::start();
    let [unknown, of_the_mesh] = [format!("{CUSTOMERS}/GetCustomr"), "meshwork.X/Y".to_owned()];
    assert!(mesh.takes(&unknown).await && mesh.takes(&of_the_mesh).await, "without instances");
    let RegisterRequest { instance, .. } = request("customer", "of-an-older-release");
    let grpc_services = vec![CUSTOMERS.into(), "shop.customer.v1.AdminService".into()];
    let older = Instance { grpc_services, ..instance.expect("given") };
    let older = RegisterRequest { instance: Some(older), ..RegisterRequest::default() };
    mesh.client.register(older).await.expect("there is room");
    assert!(mesh.takes(&unknown).await && mesh.takes(&of_the_mesh).await, "no methods are told");

    mesh.customer_with("a", &["GetCustomer"]).await;
    assert!(!mesh.takes(&unknown).await && !mesh.takes(&of_the_mesh).await);
    assert!(mesh.takes("shop.customer.v1.AdminService/Reset").await, "no method of this gRPC service is told");
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_name_a_method_as_soon_as_one_instance_has_it_and_until_none_has() {
    let mut mesh = Mesh::start();
    let method = format!("{CUSTOMERS}/DeleteCustomer");
    mesh.customer_with("a", &["GetCustomer"]).await;
    mesh.customer_with("b", &["GetCustomer"]).await;
    assert!(!mesh.takes(&method).await);

    let newer = mesh.customer_with("b", &["GetCustomer", "DeleteCustomer"]).await;
    assert!(mesh.takes(&method).await, "of one of two");
    mesh.set_status(&newer, InstanceStatus::NotServing).await.expect("it has a lease");
    assert!(mesh.takes(&method).await, "another status changes nothing");
    mesh.deregister(&newer).await;
    assert!(!mesh.takes(&method).await);
    assert!(mesh.takes(&format!("{CUSTOMERS}/GetCustomer")).await);
}

#[tokio::test(start_paused = true)]
async fn what_instances_tell_of_their_methods_is_told_to_nobody() {
    let mut mesh = Mesh::start();
    let lease = mesh.customer_with("a", &["GetCustomer"]).await;
    let snapshot = mesh.watch(&[]).await.snapshot().await;
    let told = [lease.encode_to_vec(), snapshot.encode_to_vec()];
    let says = |bytes: &[u8]| bytes.windows(11).any(|text| text == b"GetCustomer");
    assert!(!told.iter().any(|bytes| says(bytes)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn watchers_get_the_rules_with_the_snapshot_and_their_changes_as_they_happen() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    let order = mesh.rule(rules("order", &["*"], &["a.B/*"])).await;
    let mut watch = mesh.watch(&["order", "customer"]).await;
    let first = watch.response().await;
    let Some(Event::Snapshot(snapshot)) = first.event else { panic!("a snapshot comes first") };
    let told: Vec<_> = snapshot.services.iter().map(|service| service.authorization.clone()).collect();
    assert_eq!(told, [None, Some(order)]);

    let set = mesh.rule(rules("customer", &["*"], &["a.B/*"])).await;
    let second = watch.response().await;
    assert_eq!((second.epoch, second.revision), (first.epoch, first.revision + 1));
    let deleted = mesh.unrule("customer", &set.etag).await.expect("it is there");
    assert_eq!(watch.authorizations().await, std::slice::from_ref(&deleted));
    let snapshot = mesh.watch(&[]).await.snapshot().await;
    assert_eq!(services(&snapshot), [("customer", false, vec![]), ("order", true, vec!["a"])]);
    assert_eq!(snapshot.services[0].authorization, Some(deleted), "so that it can be told from one that was lost");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_registry_loses_no_rules_and_no_deletion() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let mut mesh = Mesh::restart_in(TlsMode::Plain, &file).await;
    let order = mesh.rule(rules("order", &["*"], &["a.B/*"])).await;
    let customer = mesh.rule(rules("customer", &["*"], &["a.B/*"])).await;
    let customer = mesh.unrule("customer", &customer.etag).await.expect("it is there");
    mesh.stop().await;
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("read").file_name()).collect();
    names.sort();
    assert_eq!(names, ["policies.authorization.json", "policies.json.lock"]);

    let mut mesh = Mesh::restart_in(TlsMode::Plain, &file).await;

    assert_eq!(mesh.list_rules(0, "").await.policies, std::slice::from_ref(&order));
    let snapshot = mesh.watch(&[]).await.snapshot().await;
    let told: Vec<_> = snapshot.services.into_iter().map(|service| service.authorization).collect();
    assert_eq!(told, [Some(customer), Some(order)]);
}

#[tokio::test(start_paused = true)]
async fn rules_that_cannot_be_stored_are_not_in_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let mut mesh = Mesh::restart_in(TlsMode::Plain, &file).await;
    let good = mesh.rule(rules("order", &["*"], &["a.B/*"])).await;
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    // In the way of the draft.
    fs::create_dir(folder.path().join("policies.authorization.json.draft")).expect("made");

    let refused = mesh.try_rule(rules("order", &["*"], &["a.B/C"])).await.expect_err("the disk does not take it");
    assert_eq!(reason(&refused), (Code::Unavailable, "NOT_STORED".into()));
    let refused = mesh.unrule("order", &good.etag).await.expect_err("the disk does not take it");
    assert_eq!(reason(&refused), (Code::Unavailable, "NOT_STORED".into()));

    assert_eq!(mesh.rules("order").await, good);
    assert!(matches!(watch.event().await, Event::Progress(_)));
}

#[tokio::test(start_paused = true)]
async fn a_file_of_rules_that_was_written_by_hand_is_checked_and_completed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let beside = folder.path().join("policies.authorization.json");
    let rule = r#""allow": [{"callers": ["*"], "methods": ["a.B/*"]}]"#;
    for (text, says) in [
        ("{", "is not a list of authorization policies (line 1, column 1: "),
        (r#"{"bindings": []}"#, "is not a list of authorization policies"),
        (r#"{"policies": [{}]}"#, "policy.service: is required"),
        (r#"{"policies": [{"service": "order", "deny": [{}]}]}"#, "policy of \"order\" cannot be used: policy.allow"),
        (&format!(r#"{{"policies": [{{"service": "Order", {rule}}}]}}"#), "policy of \"Order\" cannot be used"),
        (r#"{"policies": [{"service": "order"}, {"service": "order"}]}"#, "more than one authorization policy of"),
        (
            &format!(r#"{{"policies": [{{"service": "order", {rule}, "updateTime": "9999-12-31T23:59:59.999Z"}}]}}"#),
            "policy.update_time: must be before the year 9000",
        ),
        (
            &format!(r#"{{"policies": [{}{{}}]}}"#, r#"{"service": "order"},"#.repeat(4_096)),
            "has more than 4,096 authorization policies",
        ),
        (&" ".repeat(33 << 20), "is larger than 32 MiB"),
    ] {
        fs::write(&beside, text).expect("written");
        let error = PolicyStore::open(&file).await.expect_err(says).to_string();
        assert!(error.contains(says) && error.len() < 300, "{says}: {error:.300}");
        assert!(error.starts_with("policies.authorization.json: "), "{error:.300}");
    }
    let deleted = r#"{"service": "customer", "updateTime": "2026-01-01T00:00:00Z"}"#;
    let text = format!(r#"{{"policies": [{{"service": "order", {rule}}}, {deleted}, {{"service": "query"}}]}}"#);
    fs::write(&beside, text).expect("written");

    let mut mesh = Mesh::restart_in(TlsMode::Plain, &file).await;

    let order = mesh.rules("order").await;
    assert_eq!(mesh.rule(rules("order", &["*"], &["a.B/*"])).await.etag, order.etag, "as of one that was set");
    const YEAR_2026: Range<i64> = 1_767_225_600..1_767_225_601;
    assert!(YEAR_2026.contains(&time(&mesh.rules("customer").await).0));
    assert_eq!(mesh.rules("query").await.update_time, None, "it says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_file_of_rules_that_was_lost_keeps_the_registry_from_starting_until_somebody_says_that_there_were_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, beside) = (folder.path().join("policies.json"), folder.path().join("policies.authorization.json"));
    for by_registration in [true, false] {
        let mut mesh = Mesh::restart_in(TlsMode::Strict, &file).await;
        if by_registration {
            mesh.announce(ORDER, "order", &["shop.Order"]).await;
        } else {
            let binding = Binding { grpc_service: "shop.Admin".into(), service: "order".into(), ..Binding::default() };
            let request = SetBindingRequest { binding: Some(binding) };
            mesh.bindings.set_binding(by(OPERATOR, request)).await.expect("an operator's word");
        }
        mesh.stop().await;
        assert!(beside.exists(), "it is there as soon as there is anything that its loss could be noticed by");

        fs::remove_file(&beside).expect("it was there");
        let lost = PolicyStore::open(&file).await.expect_err("rules may have been in it").to_string();
        assert_eq!(
            lost,
            "policies.authorization.json: is missing, and the bindings beside it say that it was there: restore it, or \
             write {} to it to begin with none"
        );
        fs::write(&beside, "{}").expect("written");
        let mut mesh = Mesh::restart_in(TlsMode::Strict, &file).await;
        assert!(mesh.list_rules(0, "").await.policies.is_empty());
        mesh.stop().await;
        fs::remove_file(&beside).expect("it was there");
        fs::remove_file(folder.path().join("policies.bindings.json")).expect("something was bound");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_for_the_registry_that_their_author_could_not_undo_are_refused() {
    const ALL: &str = "meshwork.registry.v1.AuthorizationService/*";
    const SET: &str = "meshwork.registry.v1.AuthorizationService/SetAuthorizationPolicy";
    const READ: &str = "meshwork.registry.v1.RegistryService/*";
    let denies = |caller: &str, method: &str| AuthorizationPolicy {
        deny: vec![rule(&["service/x"], &[ALL]), rule(&[caller], &[method])],
        ..rules("registry", &["operator/*", "service/*"], &[ALL, READ])
    };
    let allows = |caller: &str, method: &str| rules("registry", &[caller], &[method]);
    let with_all = |mut policy: AuthorizationPolicy| {
        policy.allow.push(rule(&["*"], &[ALL]));
        policy
    };
    for (mode, caller, policy, wrong) in [
        (TlsMode::Strict, OPERATOR, denies("operator/*", ALL), Some("policy.deny[1]")),
        (TlsMode::Strict, OPERATOR, denies("*", SET), Some("policy.deny[1]")),
        (TlsMode::Strict, OPERATOR, denies(OPERATOR, SET), Some("policy.deny[1]")),
        (TlsMode::Strict, OPERATOR, denies("operator/eve", ALL), None),
        (TlsMode::Strict, OPERATOR, denies("service/y", ALL), None),
        (TlsMode::Strict, OPERATOR, denies("service/y", READ), None),
        (TlsMode::Permissive, OPERATOR, denies("operator/*", ALL), Some("policy.deny[1]")),
        (TlsMode::Plain, ANONYMOUS, allows("service/x", ALL), Some("policy")),
        (TlsMode::Plain, ANONYMOUS, allows("*", READ), None),
        (TlsMode::Plain, ANONYMOUS, allows("*", ALL), None),
        (TlsMode::Plain, ANONYMOUS, allows("anonymous", ALL), None),
        (TlsMode::Plain, ANONYMOUS, with_all(denies("operator/*", ALL)), Some("policy.deny[1]")),
    ] {
        let mut mesh = Mesh::in_mode(mode);
        let request = SetAuthorizationPolicyRequest { policy: Some(policy.clone()) };
        let answer = mesh.authorizations.set_authorization_policy(by(caller, request)).await;
        match wrong {
            None => drop(answer.unwrap_or_else(|status| panic!("{policy:?}: {status}"))),
            Some(field) => {
                let refused = answer.expect_err(field);
                assert_eq!(fields(&refused), [field], "{refused}");
                assert!(refused.message().contains("nobody could undo it"), "{refused}");
                assert!(mesh.rules("registry").await.allow.is_empty(), "nothing has changed");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rules_are_kept_beside_the_file_that_a_link_leads_to_and_a_link_of_theirs_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, there) = (folder.path().join("policies.json"), folder.path().join("there"));
    fs::create_dir(&there).expect("made");
    symlink("there/data.json", &file).expect("linked");
    symlink("rules.json", there.join("data.authorization.json")).expect("linked");

    let mut mesh = Mesh::restart_in(TlsMode::Plain, &file).await;
    mesh.rule(rules("order", &["*"], &["a.B/*"])).await;
    mesh.stop().await;

    assert!(there.join("data.authorization.json").is_symlink());
    assert!(fs::read_to_string(there.join("rules.json")).expect("it was made").contains("a.B/*"));
    assert!(!folder.path().join("policies.authorization.json").exists());
}

#[tokio::test(start_paused = true)]
async fn a_registry_full_of_deletions_takes_rules_and_forgets_the_oldest_deletion() {
    let folder = tempfile::tempdir().expect("a folder");
    let deleted = |n| {
        let second = if n == 7 { 0 } else { 1 };
        format!(r#"{{"service": "s{n}", "updateTime": "2026-01-01T00:00:0{second}Z"}}"#)
    };
    let deleted = (0..MAX_AUTHORIZATIONS).map(deleted).collect::<Vec<_>>().join(",");
    let text = format!(r#"{{"policies": [{deleted}]}}"#);
    fs::write(folder.path().join("policies.authorization.json"), text).expect("written");
    let mut mesh = Mesh::restart_in(TlsMode::Plain, &folder.path().join("policies.json")).await;
    assert!(mesh.rules("s7").await.update_time.is_some());

    mesh.rule(rules("order", &["*"], &["a.B/*"])).await;

    assert_eq!(mesh.rules("s7").await.update_time, None);
    assert_eq!(mesh.watch(&[]).await.snapshot().await.services.len(), MAX_AUTHORIZATIONS);
}
