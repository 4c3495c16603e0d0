//! Authorization rules on their way from a registry to a server, and on disk.

use super::*;
use crate::{
    authorization::Knowledge,
    channel::tests::net,
    contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
};

#[tokio::test(start_paused = true)]
async fn rules_reach_running_servers_and_stay_while_the_registry_is_unreachable_and_after_a_restart() {
    let net = Net::default();
    let folder = tempfile::tempdir().expect("a folder");
    let built = || {
        let mesh = Mesh::builder().registries(["registry:1"]).connector(net.connector());
        mesh.cache_dir(folder.path()).build().expect("a mesh")
    };
    let rule = AuthorizationRule { callers: vec!["*".into()], methods: vec!["a.C/*".into()] };
    let policy = AuthorizationPolicy { service: "echo".into(), allow: vec![rule], ..AuthorizationPolicy::default() };
    let is_known = |set: &EndpointSet| set.authorization.rules().is_some();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    assert_eq!(endpoints.borrow().authorization, Knowledge::Unknown);
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    assert_eq!(endpoints.borrow().authorization, Knowledge::NEVER_SET);

    watch.send("e", 2, Event::Change(Change { authorizations: vec![policy], ..Change::default() }));

    soon(endpoints.wait_for(is_known)).await.expect("discovery is here");
    registry.kill().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(is_known(&endpoints.borrow()), "the registry is unreachable");
    soon(mesh.close()).await;
    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    soon(endpoints.wait_for(is_known)).await.expect("discovery is here");
    assert!(!endpoints.borrow().is_heard(), "they were on disk");
    assert_eq!(mesh.endpoints("other").borrow().authorization, Knowledge::Unknown);
    soon(mesh.close()).await;

    let mut registry = Registry::start(&net, "registry:1");
    let mesh = built();
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    watch.snapshot("f", 1, &["b"], false);
    until(&mut endpoints, &["b"]).await;
    assert!(
        is_known(&endpoints.borrow()),
        "a registry that has lost its store has answered before the cache was needed"
    );
    soon(mesh.close()).await;
}

/// Two registries of which the first knows no rules: the mesh, what it knows of them, and the second registry, if it runs.
async fn of_two(net: &Net, second: bool) -> (Mesh, latest::Receiver<EndpointSet>, Watch, Option<Registry>) {
    let mut first = Registry::start(net, "registry:1");
    let second = second.then(|| Registry::start(net, "registry:2"));
    let mesh = Mesh::builder().registries(["registry:1", "registry:2"]).connector(net.connector());
    let mesh = mesh.build().expect("a mesh");
    let mut endpoints = mesh.endpoints("echo");
    let watch = first.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    (mesh, endpoints, watch, second)
}

#[tokio::test(start_paused = true)]
async fn no_registry_alone_says_that_there_are_no_rules_while_another_is_about_to_speak() {
    let net = Net::default();
    let (_mesh, mut endpoints, _first, second) = of_two(&net, true).await;
    let slow = second.expect("it runs").watch().await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(endpoints.borrow().authorization, Knowledge::Unknown);
    let rule = AuthorizationRule { callers: vec!["*".into()], methods: vec!["a.C/*".into()] };
    let policy = AuthorizationPolicy { service: "echo".into(), allow: vec![rule], ..AuthorizationPolicy::default() };
    slow.send("f", 2, Event::Change(Change { authorizations: vec![policy], ..Change::default() }));
    let known = |set: &EndpointSet| set.authorization != Knowledge::Unknown;
    assert!(soon(endpoints.wait_for(known)).await.expect("discovery is here").authorization.rules().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_stays_away_is_not_waited_for_and_one_that_is_the_same_store_never() {
    let known = |set: &EndpointSet| set.authorization == Knowledge::NEVER_SET;
    let net = Net::default();
    let begin = Instant::now();
    let (_mesh, mut endpoints, _first, _) = of_two(&net, false).await;
    assert_eq!(endpoints.borrow().authorization, Knowledge::Unknown);
    soon(endpoints.wait_for(known)).await.expect("discovery is here");
    assert!((10..25).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());

    let net = Net::default();
    let begin = Instant::now();
    let (_mesh, mut endpoints, _first, second) = of_two(&net, true).await;
    second.expect("it runs").watch().await.snapshot("e", 1, &["a"], false);
    soon(endpoints.wait_for(known)).await.expect("discovery is here");
    assert!(begin.elapsed().as_secs() < 1, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_enforces_the_rules_of_the_mesh_that_it_is_announced_in() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let _host = net::Host::announced(&net, "a:1", "a", &mesh);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    assert_eq!(ask(&mesh, "echo").await.expect("there are no rules"), "a");

    let rule = AuthorizationRule { callers: vec!["service/order".into()], methods: vec!["test.Echo/*".into()] };
    let mut policy =
        AuthorizationPolicy { service: "echo".into(), allow: vec![rule], ..AuthorizationPolicy::default() };
    watch.send("e", 2, Event::Change(Change { authorizations: vec![policy.clone()], ..Change::default() }));
    soon(endpoints.wait_for(|set| set.has_seen("e", 2))).await.expect("discovery is here");
    let denied = ask(&mesh, "echo").await.expect_err("anonymous is not allowed");
    assert_eq!(denied.code(), tonic::Code::PermissionDenied, "{denied}");

    policy.allow[0].callers.push("anonymous".into());
    watch.send("e", 3, Event::Change(Change { authorizations: vec![policy], ..Change::default() }));
    soon(endpoints.wait_for(|set| set.has_seen("e", 3))).await.expect("discovery is here");
    assert_eq!(ask(&mesh, "echo").await.expect("allowed"), "a");
}
