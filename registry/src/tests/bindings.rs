//! What the bindings of gRPC services promise.

use std::{fs, os::unix::fs::MetadataExt as _};

use meshwork::contract::meshwork::registry::v1::{
    Binding, BindingOrigin, DeleteBindingRequest, ListBindingsRequest, ListBindingsResponse, SetBindingRequest,
};
use tonic::Code;

use super::{
    identities::{ANONYMOUS, CUSTOMER, OPERATOR, ORDER},
    policies::reason,
    requests::fields,
    *,
};

/// A gRPC service, whose it is, who says so, and who announces it.
type Row = (String, String, BindingOrigin, Vec<String>);

fn row(grpc_service: &str, service: &str, origin: BindingOrigin, announced_by: &[&str]) -> Row {
    let announced_by = announced_by.iter().map(|&service| service.to_owned()).collect();
    (grpc_service.into(), service.into(), origin, announced_by)
}

fn asked(grpc_service: &str, service: &str, etag: &str) -> Binding {
    Binding { grpc_service: grpc_service.into(), service: service.into(), etag: etag.into(), ..Binding::default() }
}

impl Mesh {
    pub(super) async fn announce(&mut self, caller: &str, service: &str, grpc_services: &[&str]) -> Lease {
        let RegisterRequest { instance, .. } = request(service, "a");
        let grpc_services = grpc_services.iter().map(|&name| name.into()).collect();
        let instance = Instance { grpc_services, ..instance.expect("given") };
        let request = RegisterRequest { instance: Some(instance), ..RegisterRequest::default() };
        self.client.register(by(caller, request)).await.expect("its own").into_inner()
    }

    async fn bind(&mut self, binding: Binding) -> Result<Binding, Status> {
        let request = by(OPERATOR, SetBindingRequest { binding: Some(binding) });
        Ok(self.bindings.set_binding(request).await?.into_inner())
    }

    async fn unbind(&mut self, grpc_service: &str) -> Result<(), Status> {
        let request = DeleteBindingRequest { grpc_service: grpc_service.into() };
        self.bindings.delete_binding(by(OPERATOR, request)).await.map(drop)
    }

    async fn list_bindings(&mut self, page_size: i32, page_token: &str) -> ListBindingsResponse {
        let request = ListBindingsRequest { page_size, page_token: page_token.into() };
        self.bindings.list_bindings(request).await.expect("a page").into_inner()
    }

    async fn bound(&mut self) -> Vec<Row> {
        let bindings = self.list_bindings(0, "").await.bindings.into_iter();
        bindings.map(|b| (b.grpc_service.clone(), b.service.clone(), b.origin(), b.announced_by)).collect()
    }
}

use BindingOrigin::{Operator, Registration, Unspecified};

#[tokio::test(start_paused = true)]
async fn the_first_registration_under_an_identity_binds_what_it_announces() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    let every = ["grpc.health.v1.Health", "meshwork.event.v1.EventService", "shop.Order", "no name"];
    let lease = mesh.announce(ORDER, "order", &every).await;
    assert_eq!(mesh.bound().await, [row("shop.Order", "order", Registration, &["order"])]);

    mesh.client.deregister(by(ORDER, DeregisterRequest { lease_id: lease.lease_id })).await.expect("its own");
    assert_eq!(mesh.bound().await, [row("shop.Order", "order", Registration, &[])], "it stays bound");
}

#[tokio::test(start_paused = true)]
async fn who_announces_another_s_grpc_service_is_registered_and_not_bound() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    mesh.announce(CUSTOMER, "customer", &["shop.Customer", "shop.Order"]).await;
    let expected = [
        row("shop.Customer", "customer", Registration, &["customer"]),
        row("shop.Order", "order", Registration, &["customer", "order"]),
    ];
    assert_eq!(mesh.bound().await, expected);
}

#[tokio::test(start_paused = true)]
async fn without_its_service_s_identity_an_instance_binds_nothing_and_several_are_ambiguous() {
    for (mode, caller) in [(TlsMode::Plain, ANONYMOUS), (TlsMode::Permissive, ANONYMOUS), (TlsMode::Strict, OPERATOR)] {
        let mut mesh = Mesh::in_mode(mode);
        mesh.announce(caller, "order", &["shop.Admin", "shop.Order"]).await;
        mesh.announce(caller, "customer", &["shop.Admin"]).await;
        let expected = [
            row("shop.Admin", "", Unspecified, &["customer", "order"]),
            row("shop.Order", "", Unspecified, &["order"]),
        ];
        assert_eq!(mesh.bound().await, expected, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_binds_and_unbinds_whatever_was_bound() {
    let mut mesh = Mesh::in_mode(TlsMode::Strict);
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    let registered = mesh.list_bindings(0, "").await.bindings.remove(0);

    let moved = mesh.bind(asked("shop.Order", "customer", &registered.etag)).await.expect("that one");
    assert_eq!(moved.announced_by, ["order"]);
    assert_ne!(moved.etag, registered.etag);
    let late = mesh.bind(asked("shop.Order", "query", &registered.etag)).await.expect_err("it has changed");
    assert_eq!(reason(&late), (Code::Aborted, "ETAG_MISMATCH".into()));
    let again = mesh.bind(asked("shop.Order", "customer", &registered.etag)).await.expect("it is that already");
    assert_eq!(again, moved);
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    assert_eq!(mesh.bound().await, [row("shop.Order", "customer", Operator, &["order"])]);

    mesh.unbind("shop.Order").await.expect("it is bound");
    assert_eq!(mesh.bound().await, [row("shop.Order", "", Unspecified, &["order"])]);
    let twice = mesh.unbind("shop.Order").await.expect_err("it is not bound");
    assert_eq!(reason(&twice), (Code::NotFound, "NOT_BOUND".into()));
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    assert_eq!(mesh.bound().await, [row("shop.Order", "order", Registration, &["order"])], "bound anew");
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_cannot_be_is_refused_by_its_field() {
    let mut mesh = Mesh::start();
    for (binding, wrong) in [
        (asked("", "order", ""), "binding.grpc_service"),
        (asked("a b", "order", ""), "binding.grpc_service"),
        (asked("grpc.health.v1.Health", "order", ""), "binding.grpc_service"),
        (asked("shop.Order", "", ""), "binding.service"),
        (asked("shop.Order", "Order", ""), "binding.service"),
    ] {
        assert_eq!(fields(&mesh.bind(binding).await.expect_err(wrong)), [wrong]);
    }
    let missing = mesh.bindings.set_binding(SetBindingRequest::default()).await.expect_err("there is none");
    assert_eq!(fields(&missing), ["binding"]);
    assert_eq!(fields(&mesh.unbind("").await.expect_err("no name")), ["grpc_service"]);
    assert!(mesh.bound().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn bindings_come_in_pages_of_what_is_bound_and_what_is_announced() {
    let mut mesh = Mesh::start();
    for name in ["a.B", "a.D"] {
        mesh.bind(asked(name, "order", "")).await.expect("a good binding");
    }
    mesh.announce(ANONYMOUS, "order", &["a.A", "a.B", "a.C", "a.E"]).await;
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = mesh.list_bindings(2, &token).await;
        assert!(page.bindings.len() <= 2);
        names.extend(page.bindings.into_iter().map(|binding| binding.grpc_service));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a.A", "a.B", "a.C", "a.D", "a.E"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_registry_loses_no_binding() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let mut mesh = Mesh::restart_in(TlsMode::Strict, &file).await;
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    mesh.bind(asked("shop.Admin", "order", "")).await.expect("a good binding");
    let before = mesh.list_bindings(0, "").await.bindings;
    mesh.stop().await;

    let mut mesh = Mesh::restart_in(TlsMode::Strict, &file).await;
    mesh.announce(CUSTOMER, "customer", &["shop.Order"]).await;

    let after = mesh.list_bindings(0, "").await.bindings;
    let kept = |binding: &Binding| Binding { announced_by: Vec::new(), ..binding.clone() };
    assert_eq!(after.iter().map(kept).collect::<Vec<_>>(), before.iter().map(kept).collect::<Vec<_>>());
    mesh.stop().await;
    let beside = folder.path().join("policies.bindings.json");
    for (text, says) in [
        (
            r#"{"bindings": [{"grpcService": "shop.Order"}]}"#,
            "binding of \"shop.Order\" cannot be used: binding.service",
        ),
        (r#"{"bindings": [{"grpcService": "\n", "service": "order"}]}"#, "cannot be used: binding.grpc_service"),
        (r#"{"bindings": [{"grpcService": "a.B", "service": "order", "origin": 9}]}"#, "binding.origin"),
    ] {
        fs::write(&beside, text).expect("written");
        let error = PolicyStore::open(&file).await.expect_err(says).to_string();
        assert!(error.starts_with("policies.bindings.json: ") && error.contains(says), "{error}");
    }
    fs::write(&beside, r#"{"bindings": [{"grpcService": "a.B", "service": "order", "announcedBy": ["x"]}]}"#)
        .expect("written");
    assert_eq!(Mesh::restart_in(TlsMode::Strict, &file).await.bound().await, [row("a.B", "order", Operator, &[])]);
}

#[tokio::test(start_paused = true)]
async fn a_registration_whose_binding_cannot_be_stored_goes_on_and_binds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policies.json");
    let mut mesh = Mesh::restart_in(TlsMode::Strict, &file).await;
    let draft = folder.path().join("policies.bindings.json.draft");
    // In its way.
    fs::create_dir(&draft).expect("made");
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    assert_eq!(mesh.bound().await, [row("shop.Order", "", Unspecified, &["order"])]);

    fs::remove_dir(&draft).expect("removed");
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    assert_eq!(mesh.bound().await, [row("shop.Order", "order", Registration, &["order"])]);
    let file = || fs::metadata(folder.path().join("policies.bindings.json")).expect("it is there").ino();
    let written = file();
    mesh.announce(ORDER, "order", &["shop.Order"]).await;
    assert_eq!(file(), written, "nothing is written where nothing is new");
}
