//! Which store a service serves.

use meshwork::contract::meshwork::registry::v1::{AdoptStoreRequest, ListRefusedInstancesRequest, StoreScope};
use tonic::Code;

use super::*;

fn request_with(id: &str, store_id: &str, scope: StoreScope) -> RegisterRequest {
    let RegisterRequest { instance, .. } = request("order", id);
    let instance = Instance { store_id: store_id.into(), store_scope: scope.into(), ..instance.expect("given") };
    RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
}

async fn register(mesh: &mut Mesh, id: &str, store_id: &str) -> Result<Lease, Status> {
    Ok(mesh.client.register(request_with(id, store_id, StoreScope::Service)).await?.into_inner())
}

async fn adopt(mesh: &mut Mesh, store_id: &str) -> Result<(Vec<String>, Vec<String>), Status> {
    let request = AdoptStoreRequest { service: "order".into(), store_id: store_id.into() };
    let adopted = mesh.stores.adopt_store(request).await?.into_inner();
    let ids = |refs: Vec<meshwork::contract::meshwork::registry::v1::InstanceRef>| {
        refs.into_iter().map(|instance| instance.instance_id).collect()
    };
    Ok((ids(adopted.kept), ids(adopted.removed)))
}

#[tokio::test(start_paused = true)]
async fn a_second_store_of_a_service_is_refused_while_the_first_is_served() {
    let mut mesh = Mesh::start();
    let first = register(&mut mesh, "a", "one").await.expect("the first");
    register(&mut mesh, "b", "one").await.expect("the same store");
    let refused = register(&mut mesh, "c", "two").await.expect_err("another store");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in ["one", "two", "instance a", "meshwork store adopt order two"] {
        assert!(refused.message().contains(part), "{part} in {}", refused.message());
    }
    let again = register(&mut mesh, "a", "one").await.expect("a restart");
    assert_ne!(again.lease_id, first.lease_id);

    mesh.set_status(&again, InstanceStatus::Draining).await.expect("held");
    register(&mut mesh, "c", "two").await.expect_err("b serves");
    tokio::time::sleep(Duration::from_secs(11)).await;
    register(&mut mesh, "c", "two").await.expect("no instance is left");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_not_serving_does_not_come_back_beside_another_store() {
    let mut mesh = Mesh::start();
    let first = register(&mut mesh, "a", "one").await.expect("the first");
    mesh.set_status(&first, InstanceStatus::NotServing).await.expect("held");
    let second = register(&mut mesh, "b", "two").await.expect("no instance serves");
    let refused = mesh.set_status(&first, InstanceStatus::Serving).await.expect_err("b serves");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    mesh.set_status(&first, InstanceStatus::Draining).await.expect("it may leave");
    mesh.set_status(&first, InstanceStatus::NotServing).await.expect("or be there");
    mesh.set_status(&second, InstanceStatus::NotServing).await.expect("held");
    mesh.set_status(&first, InstanceStatus::Serving).await.expect("no other instance does");
}

#[tokio::test(start_paused = true)]
async fn a_refused_instance_is_listed_for_as_long_as_it_tries() {
    let mut mesh = Mesh::start();
    let listed = async |mesh: &mut Mesh| {
        let request = ListRefusedInstancesRequest { service: "order".into() };
        let listed = mesh.stores.list_refused_instances(request).await.expect("listed").into_inner().instances;
        listed
            .into_iter()
            .map(|refused| (refused.instance_id, refused.store_id, refused.served_store_id))
            .collect::<Vec<_>>()
    };
    let first = register(&mut mesh, "a", "one").await.expect("the first");
    assert_eq!(listed(&mut mesh).await, []);
    for _ in 0..3 {
        register(&mut mesh, "b", "two").await.expect_err("another store");
    }
    assert_eq!(listed(&mut mesh).await, [("b".into(), "two".into(), "one".into())]);

    mesh.set_status(&first, InstanceStatus::Draining).await.expect("held");
    register(&mut mesh, "b", "two").await.expect("no instance serves the other");
    assert_eq!(listed(&mut mesh).await, [], "it is admitted");

    register(&mut mesh, "c", "three").await.expect_err("another store");
    tokio::time::sleep(Duration::from_secs(31)).await;
    register(&mut mesh, "d", "four").await.expect("all leases have run out");
    assert_eq!(listed(&mut mesh).await, [], "it has not tried for long");
    let bad = ListRefusedInstancesRequest { service: "Order".into() };
    assert_eq!(mesh.stores.list_refused_instances(bad).await.expect_err("no name").code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn instances_with_their_own_stores_and_instances_that_name_none_do_not_conflict() {
    let mut mesh = Mesh::start();
    for (id, store_id) in [("a", "one"), ("b", "two")] {
        mesh.client.register(request_with(id, store_id, StoreScope::Instance)).await.expect("its own view");
    }
    register(&mut mesh, "c", "").await.expect("of 0.1");
    register(&mut mesh, "d", "three").await.expect("the first that says one");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_has_just_started_refuses_no_store_because_it_does_not_know_who_was_first() {
    let mut mesh = Mesh::with_grace(Duration::from_secs(15));
    register(&mut mesh, "a", "one").await.expect("who comes first need not be who was first");
    register(&mut mesh, "b", "two").await.expect("provisional");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for id in ["a", "b"] {
        let store = if id == "a" { "one" } else { "two" };
        register(&mut mesh, id, store).await.expect("again");
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    register(&mut mesh, "c", "three").await.expect("their leases have run out");
    register(&mut mesh, "d", "four").await.expect_err("it knows now");
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_store_is_another_store_also_where_its_id_was_adopted() {
    let mut mesh = Mesh::start();
    let at = |id: &str, place: &str| {
        let RegisterRequest { instance, .. } = request_with(id, "one", StoreScope::Service);
        let instance = Instance { store_place: place.into(), ..instance.expect("given") };
        RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
    };
    let first = mesh.client.register(at("a", "host:/order.db")).await.expect("the first").into_inner();
    mesh.client.register(at("b", "host:/order.db")).await.expect("the same");
    mesh.client.register(at("c", "")).await.expect("of a version that does not say");
    for _ in 0..2 {
        let refused = mesh.client.register(at("d", "host:/copy.db")).await.expect_err("a copy");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("instance a, and this instance has a copy of it"), "{refused}");
        adopt(&mut mesh, "one").await.expect("which says nothing about copies");
    }
    mesh.client.deregister(DeregisterRequest { lease_id: first.lease_id }).await.expect("left");
    mesh.client.register(at("d", "host:/copy.db")).await.expect_err("b serves");
    tokio::time::sleep(Duration::from_secs(11)).await;
    mesh.client.register(at("d", "host:/copy.db")).await.expect("moved");
    let long = mesh.client.register(at("e", &"x".repeat(257))).await.expect_err("too long");
    assert_eq!(long.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_refused_before_a_registry_restarted_waits_until_it_knows_who_was_first() {
    let again = |store_id| RegisterRequest { refused: true, ..request_with("b", store_id, StoreScope::Service) };
    let mut mesh = Mesh::with_grace(Duration::from_secs(15));
    let refused = mesh.client.register(again("two")).await.expect_err("the others may yet come back");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in ["another store", "before the registry started", "meshwork store adopt order two"] {
        assert!(refused.message().contains(part), "{part} in {}", refused.message());
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    register(&mut mesh, "a", "one").await.expect("it was never refused");
    mesh.client.register(again("one")).await.expect_err("it is not known yet");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let refused = mesh.client.register(again("two")).await.expect_err("a serves");
    assert!(refused.message().contains("from store one by instance a"), "{refused}");
    mesh.client.register(again("one")).await.expect("the same store");

    let mut mesh = Mesh::with_grace(Duration::from_secs(15));
    mesh.client.register(again("two")).await.expect_err("the others may yet come back");
    adopt(&mut mesh, "two").await.expect("an operator knows");
    mesh.client.register(again("two")).await.expect("adopted");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_adopted_takes_the_place_of_the_other() {
    let mut mesh = Mesh::start();
    let old = register(&mut mesh, "a", "one").await.expect("the first");
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    let unknown = adopt(&mut mesh, "tow").await.expect_err("a slip of the pen");
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    register(&mut mesh, "b", "two").await.expect_err("another store");
    assert_eq!(adopt(&mut mesh, "two").await.expect("of b"), (vec![], vec![]));
    let mut renewals = mesh.keep_alive().await;
    assert_eq!(renewals.renew(&old).await, LeaseState::Renewed, "no instance serves the other yet, and calls go on");
    register(&mut mesh, "b", "two").await.expect("adopted");
    assert_eq!(watch.change().await.1, ["a"], "both are never there");
    assert_eq!(renewals.renew(&old).await, LeaseState::Unknown);
    register(&mut mesh, "a", "one").await.expect_err("it is served");
    assert_eq!(adopt(&mut mesh, "two").await.expect("again"), (vec!["b".to_owned()], vec![]));
    let two = register(&mut mesh, "b", "two").await.expect("a restart");
    mesh.set_status(&two, InstanceStatus::NotServing).await.expect("held");
    register(&mut mesh, "a", "one").await.expect_err("also while the adopted store is not served");
    mesh.client.deregister(DeregisterRequest { lease_id: two.lease_id }).await.expect("left");
    register(&mut mesh, "a", "one").await.expect_err("or when no instance is there");
    register(&mut mesh, "b", "two").await.expect("it is back");
    assert_eq!(watch.change().await.0, ["b"]);
    assert_eq!(adopt(&mut mesh, "one").await.expect("of a"), (vec![], vec![]));
    register(&mut mesh, "a", "one").await.expect("and back");
    assert_eq!(watch.change().await.1, ["b"]);

    let bad = AdoptStoreRequest { service: "Order".into(), store_id: String::new() };
    assert_eq!(mesh.stores.adopt_store(bad).await.expect_err("malformed").code(), Code::InvalidArgument);
}
