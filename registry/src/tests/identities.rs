//! Who may do what, where callers have identities.

use meshwork::contract::meshwork::registry::v1::{
    AdoptStoreRequest, Binding, DeleteAuthorizationPolicyRequest, DeleteBindingRequest, GetAuthorizationPolicyRequest,
    GetPolicyRequest, ListBindingsRequest, ListServicesRequest, Policy, SetAuthorizationPolicyRequest,
    SetBindingRequest, SetPolicyRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{authorizations::rules, *};

pub(super) const ANONYMOUS: &str = "";
pub(super) const ORDER: &str = "service/order";
pub(super) const CUSTOMER: &str = "service/customer";
pub(super) const OPERATOR: &str = "operator/ada";

impl Mesh {
    async fn set_status_by(&mut self, caller: &str, lease: &Lease) -> Result<Lease, Status> {
        let request = SetStatusRequest { lease_id: lease.lease_id.clone(), status: InstanceStatus::Draining.into() };
        Ok(self.client.set_status(by(caller, request)).await?.into_inner())
    }

    async fn deregister_by(&mut self, caller: &str, lease: &Lease) -> Result<(), Status> {
        let request = DeregisterRequest { lease_id: lease.lease_id.clone() };
        self.client.deregister(by(caller, request)).await.map(drop)
    }

    /// The ids of the instances of `order`.
    async fn order_instances(&mut self) -> Vec<String> {
        let snapshot = self.watch(&["order"]).await.snapshot().await;
        snapshot.services[0].instances.iter().map(|instance| instance.instance_id.clone()).collect()
    }
}

/// Fails unless it is a refusal that names all of `parts`.
pub(super) fn assert_not_allowed(status: &Status, parts: &[&str]) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("registry.meshwork", "NOT_ALLOWED"));
    for part in parts {
        assert!(status.message().contains(part), "{part} in {}", status.message());
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_service_itself_and_operators_register_its_instances() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    for (caller, name) in [(CUSTOMER, CUSTOMER), (ANONYMOUS, "anonymous"), ("service/order/x", "service/order/x")] {
        let refused = mesh.register_by(caller, "order", "a").await.expect_err("the name is another's");
        assert_not_allowed(&refused, &[name, "instances of order", "only service/order and operators may"]);
    }
    assert!(mesh.order_instances().await.is_empty());
    mesh.register_by(ORDER, "order", "a").await.expect("its own");
    mesh.register_by(OPERATOR, "order", "b").await.expect("an operator");
    assert_eq!(mesh.order_instances().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn the_identity_of_an_instance_is_its_certificate_s_whatever_it_says_itself() {
    let claims = || {
        let RegisterRequest { instance, .. } = request("order", "a");
        let instance = Instance { identity: "spiffe://shop.test/operator/ada".into(), ..instance.expect("given") };
        RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
    };
    for (mode, caller, identity) in [
        (TlsMode::Plain, ORDER, ""),
        (TlsMode::Plain, ANONYMOUS, ""),
        (TlsMode::Permissive, ANONYMOUS, ""),
        (TlsMode::Permissive, ORDER, "spiffe://shop.test/service/order"),
        (TlsMode::Strict, ORDER, "spiffe://shop.test/service/order"),
    ] {
        let mut mesh = Mesh::in_mode(mode);
        let lease = mesh.client.register(by(caller, claims())).await.expect("its own").into_inner();
        assert_eq!(lease.instance.expect("as registered").identity, identity, "{mode:?}");
        let snapshot = mesh.watch(&["order"]).await.snapshot().await;
        assert_eq!(snapshot.services[0].instances[0].identity, identity, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_changed_and_ended_by_its_own_service_and_operators_only() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    let lease = mesh.register_by(ORDER, "order", "a").await.expect("its own");
    for caller in [CUSTOMER, ANONYMOUS] {
        let refused = mesh.set_status_by(caller, &lease).await.expect_err("it is another's");
        assert_not_allowed(&refused, &["instances of order", "only service/order and operators may"]);
        let refused = mesh.deregister_by(caller, &lease).await.expect_err("it is another's");
        assert_not_allowed(&refused, &["instances of order"]);
    }
    for caller in [ORDER, OPERATOR] {
        mesh.set_status_by(caller, &lease).await.expect("allowed");
    }
    assert_eq!(mesh.order_instances().await, ["a"]);
    mesh.deregister_by(OPERATOR, &lease).await.expect("allowed");
    let again = mesh.register_by(ORDER, "order", "a").await.expect("its own");
    mesh.deregister_by(ORDER, &again).await.expect("allowed");
    assert!(mesh.order_instances().await.is_empty());
    let nothing = Lease { lease_id: "no lease at all".into(), ..Lease::default() };
    mesh.deregister_by(CUSTOMER, &nothing).await.expect("nothing happens");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_of_another_s_lease_renews_nothing_and_does_not_end_the_stream() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    let order = mesh.register_by(ORDER, "order", "a").await.expect("its own");
    let customer = mesh.register_by(CUSTOMER, "customer", "a").await.expect("its own");
    let mut renewals = mesh.keep_alive_by(CUSTOMER).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(renewals.renew(&order).await, LeaseState::Unknown);
        assert_eq!(renewals.renew(&customer).await, LeaseState::Renewed);
    }
    assert!(mesh.order_instances().await.is_empty(), "its lease has run out");
    let order = mesh.register_by(ORDER, "order", "a").await.expect("its own");
    for caller in [ORDER, OPERATOR] {
        assert_eq!(mesh.keep_alive_by(caller).await.renew(&order).await, LeaseState::Renewed);
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_migration_an_anonymous_instance_lives_as_before() {
    let mut mesh = Mesh::in_mode(TlsMode::Permissive);
    let lease = mesh.register("order", "a").await;
    assert_eq!(mesh.keep_alive().await.renew(&lease).await, LeaseState::Renewed);
    mesh.set_status(&lease, InstanceStatus::Draining).await.expect("its own");
    mesh.deregister(&lease).await;
    assert!(mesh.order_instances().await.is_empty());
    let refused = mesh.register_by(CUSTOMER, "order", "a").await.expect_err("an identity binds");
    assert_not_allowed(&refused, &[CUSTOMER]);
}

#[tokio::test(start_paused = true)]
async fn in_a_migration_an_anonymous_caller_touches_nothing_that_is_held_under_an_identity() {
    let mut mesh = Mesh::in_mode(TlsMode::Permissive);
    let before = mesh.register("order", "a").await;
    let attempt = |number| RegisterRequest { holder: "process".into(), attempt: number, ..request("order", "a") };
    let lease = mesh.client.register(by(ORDER, attempt(2))).await.expect("it takes over").into_inner();
    assert_eq!(mesh.keep_alive().await.renew(&before).await, LeaseState::Fenced, "as of any other");

    let refused = mesh.register_by(ANONYMOUS, "order", "a").await.expect_err("it is held");
    assert_not_allowed(&refused, &["anonymous may not replace", "instance a of order", "service/order"]);
    let late = mesh.client.register(attempt(1)).await.expect_err("not even a late call of the same process");
    assert_not_allowed(&late, &["anonymous may not replace"]);
    // Who has its id must have stolen it.
    assert_not_allowed(&mesh.set_status_by(ANONYMOUS, &lease).await.expect_err("held"), &["instance a of order"]);
    assert_not_allowed(&mesh.deregister_by(ANONYMOUS, &lease).await.expect_err("held"), &["instance a of order"]);
    assert_eq!(mesh.keep_alive().await.renew(&lease).await, LeaseState::Unknown);
    assert_eq!(mesh.keep_alive_by(ORDER).await.renew(&lease).await, LeaseState::Renewed);

    mesh.register_by(ANONYMOUS, "order", "b").await.expect("another instance");
    mesh.deregister_by(ORDER, &lease).await.expect("its own");
    mesh.register_by(ANONYMOUS, "order", "a").await.expect("no identity holds it now");
}

#[tokio::test(start_paused = true)]
async fn what_holds_for_the_whole_mesh_is_set_by_operators_only() {
    for (mode, caller, may) in [
        (TlsMode::Plain, ANONYMOUS, true),
        (TlsMode::Permissive, ANONYMOUS, false),
        (TlsMode::Permissive, ORDER, false),
        (TlsMode::Permissive, OPERATOR, true),
        (TlsMode::Strict, ORDER, false),
        (TlsMode::Strict, OPERATOR, true),
    ] {
        let mut mesh = Mesh::in_mode(mode);
        let policy = Policy { service: "order".into(), ..Policy::default() };
        let set = mesh.policies.set_policy(by(caller, SetPolicyRequest { policy: Some(policy) })).await;
        let store = AdoptStoreRequest { service: "order".into(), store_id: "one".into() };
        let adopted = mesh.stores.adopt_store(by(caller, store)).await.expect_err("there is no such store");
        let rules = SetAuthorizationPolicyRequest { policy: Some(rules("order", &["*"], &["a.B/*"])) };
        let ruled = mesh.authorizations.set_authorization_policy(by(caller, rules)).await;
        let deletion = DeleteAuthorizationPolicyRequest { service: "order".into(), etag: "x".into() };
        let unruled = mesh.authorizations.delete_authorization_policy(by(caller, deletion)).await;
        let unruled = unruled.expect_err("another etag");
        let binding = Binding { grpc_service: "a.B".into(), service: "order".into(), ..Binding::default() };
        let bound = mesh.bindings.set_binding(by(caller, SetBindingRequest { binding: Some(binding) })).await;
        let unbinding = DeleteBindingRequest { grpc_service: "a.C".into() };
        let unbound = mesh.bindings.delete_binding(by(caller, unbinding)).await.expect_err("it is not bound");
        if may {
            set.expect("allowed");
            ruled.expect("allowed");
            bound.expect("allowed");
            assert_eq!(adopted.code(), Code::NotFound, "{mode:?} {caller}");
            assert_eq!(unruled.code(), Code::Aborted, "{mode:?} {caller}");
            assert_eq!(unbound.code(), Code::NotFound, "{mode:?} {caller}");
        } else {
            assert_not_allowed(
                &ruled.expect_err("refused"),
                &["may not set authorization policies: only operators may"],
            );
            assert_not_allowed(&unruled, &["may not delete authorization policies: only operators may"]);
            assert_not_allowed(&bound.expect_err("refused"), &["may not set bindings: only operators may"]);
            assert_not_allowed(&unbound, &["may not delete bindings: only operators may"]);
            assert_not_allowed(&set.expect_err("refused"), &["may not set policies: only operators may"]);
            assert_not_allowed(&adopted, &["may not adopt stores: only operators may"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_identity_reads() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    mesh.register_by(ORDER, "order", "a").await.expect("its own");
    mesh.client.list_services(by(CUSTOMER, ListServicesRequest::default())).await.expect("a read");
    mesh.client.watch(by(CUSTOMER, WatchRequest::default())).await.expect("a read");
    mesh.policies.get_policy(by(CUSTOMER, GetPolicyRequest { service: "order".into() })).await.expect("a read");
    let get = GetAuthorizationPolicyRequest { service: "order".into() };
    mesh.authorizations.get_authorization_policy(by(CUSTOMER, get)).await.expect("a read");
    mesh.bindings.list_bindings(by(CUSTOMER, ListBindingsRequest::default())).await.expect("a read");
}
