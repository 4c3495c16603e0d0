//! What several registries make of one mesh, and how it is reported.

use super::*;

fn mesh_of_two(net: &Net) -> Mesh {
    let mesh = Mesh::builder().registries(["registry:1", "http://registry:2"]).connector(net.connector());
    mesh.build().expect("a mesh")
}

#[tokio::test(start_paused = true)]
async fn what_registries_know_that_know_nothing_of_each_other_is_one_mesh() {
    let net = Net::default();
    let (mut first, mut second) = (Registry::start(&net, "registry:1"), Registry::start(&net, "registry:2"));
    let mesh = mesh_of_two(&net);
    let mut endpoints = mesh.endpoints("echo");
    let (one, other) = (first.watch().await, second.watch().await);
    one.snapshot("e", 1, &["a"], false);
    other.snapshot("f", 7, &["b"], false);
    let set = until(&mut endpoints, &["a", "b"]).await;
    assert!(set.has_seen("e", 1) && set.has_seen("f", 7));

    first.kill().await;
    drop(one);
    let removed = vec![InstanceRef { service: "echo".into(), instance_id: "b".into() }];
    other.send("f", 8, Event::Change(Change { removed, ..Change::default() }));
    until(&mut endpoints, &["a"]).await;
    let mut first = Registry::start(&net, "registry:1");
    let again = first.watch().await;
    assert_eq!(again.resumes_from(), Some(("e", 1)));
    again.snapshot("e2", 1, &["c"], true);
    until(&mut endpoints, &["a", "c"]).await;
    again.snapshot("e2", 2, &["c"], false);
    until(&mut endpoints, &["c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_falls_silent_is_asked_again_and_the_others_go_on() {
    let net = Net::default();
    let (mut silent, mut second) = (Registry::start(&net, "registry:1"), Registry::start(&net, "registry:2"));
    let mesh = mesh_of_two(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = silent.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    let other = second.watch().await;
    other.snapshot("f", 1, &["b"], false);
    until(&mut endpoints, &["a", "b"]).await;
    let begin = Instant::now();
    let marks = async {
        for revision in 2.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            other.send("f", revision, Event::Progress(Progress {}));
        }
    };
    tokio::select! {
        again = silent.watch() => assert_eq!(again.resumes_from(), Some(("e", 1))),
        () = marks => {}
    }
    assert!((20..25).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(second.watches.try_recv().is_err(), "the other was not disturbed");
}

#[tokio::test(start_paused = true)]
async fn of_registries_that_are_one_store_one_is_watched_and_another_once_it_is_away() {
    let net = Net::default();
    let (mut first, mut second) = (Registry::start(&net, "registry:1"), Registry::start(&net, "registry:2"));
    let mesh = mesh_of_two(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = first.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    let same = second.watch().await;
    same.snapshot("e", 1, &["a"], false);
    soon(same.responses.closed()).await;
    watch.send("e", 2, Event::Change(Change { updated: vec![instance("echo", "b")], ..Change::default() }));
    until(&mut endpoints, &["a", "b"]).await;

    first.kill().await;
    let watch = second.watch().await;
    watch.snapshot("e", 3, &["b"], false);
    until(&mut endpoints, &["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_unreachable_at_the_start_holds_nothing_up_and_is_heard_when_it_comes() {
    let net = Net::default();
    let mut second = Registry::start(&net, "registry:2");
    let mesh = mesh_of_two(&net);
    let mut endpoints = mesh.endpoints("echo");
    second.watch().await.snapshot("f", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    let mut first = Registry::start(&net, "registry:1");
    first.watch().await.snapshot("e", 1, &["b"], false);
    until(&mut endpoints, &["a", "b"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_served_from_two_stores_is_told_of_and_so_is_its_end() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
    let of = |id: &str, store: &str| Instance { store_id: store.into(), ..instance("echo", id) };
    let told = |differ: u8| {
        let told = recorder.handle().render();
        assert!(told.contains(&format!(r#"meshwork_stores_differ{{service="echo"}} {differ}"#)), "{told}");
    };
    watch.send("e", 2, Event::Change(Change { updated: vec![of("a", "one"), of("b", "two")], ..Change::default() }));
    until(&mut endpoints, &["a", "b"]).await;
    tokio::task::yield_now().await;
    told(1);
    watch.send("e", 3, Event::Change(Change { updated: vec![of("a", "two")], ..Change::default() }));
    soon(endpoints.changed()).await.expect("the mesh is there");
    tokio::task::yield_now().await;
    told(0);
}
