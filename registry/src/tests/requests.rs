//! Every malformed request gets INVALID_ARGUMENT with the fields that are wrong, and changes nothing.

use std::collections::HashMap;

use meshwork::contract::meshwork::registry::v1::{
    IdempotentMethod, ListInstancesRequest, ListServicesRequest, SetStatusRequest,
};
use tonic::{Code, Response};
use tonic_types::StatusExt as _;

use super::*;

/// The fields that an INVALID_ARGUMENT blames.
fn blamed<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> Vec<String> {
    fields(&result.expect_err("it is malformed"))
}

pub(super) fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("registry.meshwork", "INVALID_FIELD"));
    let violations = &details.bad_request().expect("every violation is listed").field_violations;
    violations.iter().map(|violation| violation.field.clone()).collect()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[tokio::test]
async fn a_malformed_instance_is_refused_by_the_field_that_is_wrong() {
    let method =
        |method: &str, level| IdempotentMethod { method: method.into(), idempotency_level: level, unary: true };
    let long = |length: usize| "x".repeat(length);
    type Spoil<'a> = Box<dyn Fn(&mut Instance) + 'a>;
    let cases: Vec<(&str, Spoil<'_>)> = vec![
        ("instance.service", Box::new(|i| i.service = String::new())),
        ("instance.service", Box::new(|i| i.service = "Order".into())),
        ("instance.service", Box::new(|i| i.service = "a/b".into())),
        ("instance.service", Box::new(|i| i.service = long(64))),
        ("instance.instance_id", Box::new(|i| i.instance_id = String::new())),
        ("instance.instance_id", Box::new(|i| i.instance_id = "a b".into())),
        ("instance.instance_id", Box::new(|i| i.instance_id = "ü".into())),
        ("instance.instance_id", Box::new(|i| i.instance_id = long(129))),
        ("instance.address", Box::new(|i| i.address = String::new())),
        ("instance.address", Box::new(|i| i.address = "host".into())),
        ("instance.address", Box::new(|i| i.address = ":7000".into())),
        ("instance.address", Box::new(|i| i.address = "host:0".into())),
        ("instance.address", Box::new(|i| i.address = "host:70000".into())),
        ("instance.address", Box::new(|i| i.address = "::1:7000".into())),
        ("instance.address", Box::new(|i| i.address = "ho st:7000".into())),
        ("instance.address", Box::new(|i| i.address = "user@host:7000".into())),
        ("instance.address", Box::new(|i| i.address = "host/path:7000".into())),
        ("instance.address", Box::new(|i| i.address = format!("{}:7000", long(251)))),
        ("instance.version", Box::new(|i| i.version = long(129))),
        ("instance.zone", Box::new(|i| i.zone = long(129))),
        ("instance.weight", Box::new(|i| i.weight = 1001)),
        ("instance.status", Box::new(|i| i.status = 99)),
        ("instance.labels", Box::new(|i| i.labels = HashMap::from([(String::new(), String::new())]))),
        ("instance.labels", Box::new(|i| i.labels = HashMap::from([("k".into(), long(257))]))),
        ("instance.labels", Box::new(|i| i.labels = (0..65).map(|n| (n.to_string(), String::new())).collect())),
        ("instance.grpc_services", Box::new(|i| i.grpc_services = vec!["s".into(); 257])),
        ("instance", { Box::new(|i| i.idempotent_methods = vec![method(&format!("s/{}", "M".repeat(200)), 1); 1024]) }),
        ("instance.grpc_services[1]", Box::new(|i| i.grpc_services = vec!["s".into(), String::new(), String::new()])),
        ("instance.idempotent_methods", Box::new(|i| i.idempotent_methods = vec![method("s/M", 1); 1025])),
        ("instance.idempotent_methods[0].method", Box::new(|i| i.idempotent_methods = vec![method("", 1)])),
        ("instance.idempotent_methods[0].idempotency_level", {
            Box::new(|i| i.idempotent_methods = vec![method("s/M", 9)])
        }),
    ];
    let mut mesh = Mesh::start();
    for (field, spoil) in cases {
        let mut request = request("order", "a");
        spoil(request.instance.as_mut().expect("given"));
        assert_eq!(blamed(mesh.client.register(request).await), [field]);
    }
    assert!(mesh.watch(&[]).await.snapshot().await.services.is_empty(), "nothing was registered");
}

#[tokio::test]
async fn everything_that_is_wrong_is_reported_at_once() {
    let mut mesh = Mesh::start();
    let nothing = RegisterRequest { instance: None, lease_ttl: Some(seconds(-1)), ..RegisterRequest::default() };
    assert_eq!(blamed(mesh.client.register(nothing).await), ["lease_ttl", "instance"]);
    let empty = RegisterRequest { instance: Some(Instance::default()), ..RegisterRequest::default() };
    let required = ["instance.service", "instance.instance_id", "instance.address"];
    assert_eq!(blamed(mesh.client.register(empty).await), required);
}

#[tokio::test]
async fn an_instance_tells_up_to_4096_methods_of_up_to_256_characters_and_128_kib_in_all() {
    let mut mesh = Mesh::start();
    let long = |length: usize| "x".repeat(length);
    for (methods, wrong) in [
        (vec!["a.B/C".into(); 4096], None),
        (vec![long(256); 512], None),
        (vec![long(256); 513], Some("methods")),
        (vec!["a.B/C".into(); 4097], Some("methods")),
        (vec!["a.B/C".into(), long(257)], Some("methods[1]")),
        (vec![String::new(), String::new()], Some("methods[0]")),
    ] {
        let request = RegisterRequest { methods, ..request("order", "a") };
        match (mesh.client.register(request).await, wrong) {
            (Ok(_), None) => {}
            (answer, wrong) => assert_eq!(blamed(answer), [wrong.expect("accepted")]),
        }
    }
}

#[tokio::test]
async fn a_lease_lasts_from_a_second_to_five_minutes() {
    let mut mesh = Mesh::start();
    for (ttl, accepted) in [(0, false), (1, true), (300, true), (301, false), (i64::MAX, false), (i64::MIN, false)] {
        let request = RegisterRequest { lease_ttl: Some(seconds(ttl)), ..request("order", "a") };
        match mesh.client.register(request).await {
            Ok(lease) => assert!(accepted && lease.into_inner().lease_ttl == Some(seconds(ttl)), "{ttl} s"),
            Err(status) => assert!(!accepted && fields(&status) == ["lease_ttl"], "{ttl} s"),
        }
    }
}

#[tokio::test]
async fn addresses_of_every_kind_are_taken() {
    let mut mesh = Mesh::start();
    for address in ["10.0.0.1:80", "order.internal:7000", "[::1]:7000", "localhost:65535"] {
        let mut request = request("order", "a");
        request.instance.as_mut().expect("given").address = address.into();
        mesh.client.register(request).await.expect(address);
    }
}

#[tokio::test]
async fn a_lease_id_that_no_registry_ever_gives_is_malformed() {
    let mut mesh = Mesh::start();
    for lease_id in [String::new(), "x".repeat(1000)] {
        let deregister = DeregisterRequest { lease_id: lease_id.clone() };
        assert_eq!(blamed(mesh.client.deregister(deregister).await), ["lease_id"]);
        let set = SetStatusRequest { lease_id: lease_id.clone(), status: 0 };
        assert_eq!(blamed(mesh.client.set_status(set).await), ["lease_id", "status"]);
        let mut renewals = mesh.keep_alive().await;
        renewals.send(&lease_id);
        assert_eq!(fields(&renewals.next().await.expect("an answer").expect_err("it is malformed")), ["lease_id"]);
        assert!(renewals.next().await.is_none(), "the stream ends there");
    }
}

#[tokio::test]
async fn a_status_must_be_one() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    for status in [0, 5, -1] {
        let set = SetStatusRequest { lease_id: lease.lease_id.clone(), status };
        assert_eq!(blamed(mesh.client.set_status(set).await), ["status"]);
    }
}

#[tokio::test]
async fn a_page_is_asked_for_with_a_size_and_a_token_of_the_same_list() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    mesh.register("order", "b").await;
    let list = |service: &str, page_size, page_token: &str| ListInstancesRequest {
        service: service.into(),
        page_size,
        page_token: page_token.into(),
    };
    let first = mesh.client.list_instances(list("order", 1, "")).await.expect("a page").into_inner();
    let token = first.next_page_token.as_str();
    for (request, wrong) in [
        (list("", 0, ""), vec!["service"]),
        (list("Order", -1, "!"), vec!["service", "page_size", "page_token"]),
        (list("customer", 0, token), vec!["page_token"]),
        (list("order", 0, &"A".repeat(5000)), vec!["page_token"]),
    ] {
        assert_eq!(blamed(mesh.client.list_instances(request).await), wrong);
    }
    let services = ListServicesRequest { page_size: -1, page_token: token.into() };
    assert_eq!(blamed(mesh.client.list_services(services).await), ["page_size", "page_token"]);
}

#[tokio::test]
async fn a_token_whose_key_is_no_text_is_malformed() {
    let page_token = meshwork::rpc::Page::token_after(b"order", &[0xff, 0xfe]);
    let request = ListInstancesRequest { service: "order".into(), page_size: 0, page_token };
    assert_eq!(blamed(Mesh::start().client.list_instances(request).await), ["page_token"]);
}

#[tokio::test]
async fn a_watch_names_services_that_can_exist_and_not_too_many() {
    let mut mesh = Mesh::start();
    let names = |names: Vec<String>| WatchRequest { services: names, resume_from: None };
    let bad = names(vec!["order".into(), "Order".into(), "OTHER".into()]);
    assert_eq!(blamed(mesh.client.watch(bad).await), ["services[1]"]);
    let many = names((0..1025).map(|n| n.to_string()).collect());
    assert_eq!(blamed(mesh.client.watch(many).await), ["services"]);
    assert_eq!(blamed(mesh.client.watch(names(vec![String::new()])).await), ["services[0]"]);
}
