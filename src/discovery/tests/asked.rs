//! Which services are asked for, and what is known of one that is no longer, and then again.

use super::*;

/// A registry's word that `echo` has the instance `a`.
fn echo_at_a() -> WatchResponse {
    let echo = ServiceInstances {
        service: "echo".into(),
        known: true,
        instances: vec![instance("echo", "a")],
        policy: None,
        authorization: None,
    };
    let snapshot = Snapshot { services: vec![echo], provisional: false };
    WatchResponse { epoch: "e".into(), revision: 1, event: Some(Event::Snapshot(snapshot)) }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_fails_its_own_calls_at_once_and_is_never_asked_for() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let before = Instant::now();
    let _channels = ["Query", "", "or der"].map(|name| mesh.channel(name));
    for name in ["Query", "", "or der"] {
        let status = ask(&mesh, name).await.expect_err("no name of a service");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("service name {name:?}: ")), "{status}");
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    let mut endpoints = mesh.endpoints("echo");
    let watch = registry.watch().await;
    assert_eq!(watch.request.services, ["echo"]);
    watch.snapshot("e", 1, &["a"], false);
    until(&mut endpoints, &["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_while_the_registry_was_away_is_heard_of_again() {
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let (mut echo, _other) = (mesh.endpoints("echo"), mesh.endpoints("other"));
    // Two are asked for one after the other.
    let mut watch = registry.watch().await;
    if watch.request.services.len() < 2 {
        watch = registry.watch().await;
    }
    watch.snapshot("e", 7, &["a"], false);
    until(&mut echo, &["a"]).await;
    drop((echo, watch));
    registry.kill().await;
    // Attempts fail meanwhile.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut echo = mesh.endpoints("echo");
    let mut registry = Registry::start(&net, "registry:1");
    let watch = registry.watch().await;
    assert_eq!((watch.request.services.len(), watch.resumes_from()), (2, None), "what is gone would not be told again");
    watch.snapshot("e", 7, &["a"], false);
    until(&mut echo, &["a"]).await;
}

#[test]
fn what_one_registry_is_no_longer_asked_for_another_has_still_told() {
    let (discovery, services) = (Discovery::new(2), [Arc::<str>::from("echo")]);
    let first = discovery.endpoints("echo");
    discovery.change(&services, |union| union.apply(1, echo_at_a(), &services));
    drop(first);
    discovery.union().retain(0, &discovery.wanted());
    assert!(discovery.endpoints("echo").borrow().endpoints.contains_key("a"), "the other's watch stands");
}

#[test]
fn a_service_that_is_asked_for_again_is_known_for_as_long_as_it_is_watched() {
    let (discovery, services) = (Discovery::new(1), [Arc::<str>::from("echo")]);
    let first = discovery.endpoints("echo");
    discovery.change(&services, |union| union.apply(0, echo_at_a(), &services));
    assert!(first.borrow().endpoints.contains_key("a"));
    drop(first);
    assert!(discovery.wanted().is_empty());
    assert!(discovery.endpoints("echo").borrow().endpoints.contains_key("a"), "and need not wait for a change");
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_to_a_service_of_which_nothing_has_registered_says_so_once() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let net = Net::default();
    let mut registry = Registry::start(&net, "registry:1");
    let mesh = mesh(&net);
    let _channels = [mesh.channel("nosuch"), mesh.channel("nosuch"), mesh.channel("echo")];
    let watch = registry.watch().await;
    let nosuch = ServiceInstances { service: "nosuch".into(), ..ServiceInstances::default() };
    let echo = ServiceInstances { service: "echo".into(), known: true, ..ServiceInstances::default() };
    watch.send("e", 1, Event::Snapshot(Snapshot { services: vec![nosuch, echo], provisional: false }));
    // On the paused clock.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told = String::from_utf8(lines.0.lock().clone()).expect("UTF-8");
    assert_eq!(told.matches("is its name right? service=\"nosuch\"").count(), 1, "{told}");
    assert!(!told.contains("is its name right? service=\"echo\""), "{told}");
}
