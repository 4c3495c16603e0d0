//! What a watch promises.

use meshwork::instance::DEFAULT_LEASE_TTL;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    DEFAULT_GRACE,
    backend::PROGRESS_INTERVAL,
    limits::{MAX_TOMBSTONES, MAX_WATCHES},
};

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_a_snapshot_and_goes_on_with_changes() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    let mut watch = mesh.watch(&["order"]).await;
    let first = watch.response().await;
    assert_eq!((first.epoch.as_str(), first.revision), (lease.epoch.as_str(), lease.revision));
    let Some(Event::Snapshot(snapshot)) = first.event else { panic!("a snapshot comes first") };
    assert_eq!(services(&snapshot), [("order", true, vec!["a"])]);
    assert_eq!(snapshot.services[0].instances[0], lease.instance.clone().expect("the instance as registered"));

    mesh.register("order", "b").await;
    assert_eq!(watch.change().await, (vec!["b".into()], vec![]));
    mesh.set_status(&lease, InstanceStatus::Draining).await.expect("the lease is held");
    assert_eq!(watch.change().await, (vec!["a".into()], vec![]));
    mesh.deregister(&lease).await;
    assert_eq!(watch.change().await, (vec![], vec!["a".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_change_carries_at_least_the_revision_that_its_maker_was_told() {
    let mut mesh = Mesh::start();
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    let lease = mesh.register("order", "a").await;
    assert_eq!(watch.response().await.revision, lease.revision);
    let lease = mesh.set_status(&lease, InstanceStatus::Draining).await.expect("the lease is held");
    assert_eq!(watch.response().await.revision, lease.revision);
}

#[tokio::test(start_paused = true)]
async fn watchers_see_a_dead_instance_leave_at_the_end_of_its_lease() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    let registered = Instant::now();
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    assert!(matches!(watch.event().await, Event::Progress(_)));
    loop {
        match watch.event().await {
            Event::Progress(_) => assert!(registered.elapsed() <= DEFAULT_LEASE_TTL),
            Event::Change(change) => break assert_eq!(ids(change), (vec![], vec!["a".into()])),
            Event::Snapshot(_) => panic!("nothing asked for a snapshot"),
        }
    }
    // Timers fire at the millisecond after their time.
    assert!(registered.elapsed() - DEFAULT_LEASE_TTL <= Duration::from_millis(1), "{:?}", registered.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_resumes_gets_what_it_missed_and_only_that() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    let b = mesh.register("order", "b").await;
    let resume = point(&mesh.watch(&["order"]).await.response().await);
    mesh.register("order", "c").await;
    mesh.deregister(&b).await;

    let mut watch = mesh.watch_from(&["order"], resume).await;

    assert_eq!(watch.change().await, (vec!["c".into()], vec!["b".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_missed_nothing_learns_so_at_once() {
    let mut mesh = Mesh::start();
    mesh.register("order", "a").await;
    let resume = point(&mesh.watch(&["order"]).await.response().await);
    mesh.register("customer", "b").await;
    let start = Instant::now();

    let mut watch = mesh.watch_from(&["order"], resume).await;

    assert_eq!(watch.change().await, (vec![], vec![]));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_resume_point_of_another_life_gets_a_snapshot() {
    let mut mesh = Mesh::start();
    let resume = point(&mesh.watch(&["order"]).await.response().await);
    let mut restarted = Mesh::start();
    restarted.register("order", "a").await;

    let mut watch = restarted.watch_from(&["order"], resume).await;

    assert_eq!(services(&watch.snapshot().await), [("order", true, vec!["a"])]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_point_that_is_too_old_or_was_never_given_gets_a_snapshot() {
    let mut mesh = Mesh::start();
    let first = mesh.watch(&["order"]).await.response().await;
    for n in 0..=MAX_TOMBSTONES {
        let lease = mesh.register("order", &n.to_string()).await;
        mesh.deregister(&lease).await;
    }
    mesh.watch_from(&["order"], point(&first)).await.snapshot().await;
    let never = Some(ResumePoint { epoch: first.epoch, revision: u64::MAX });
    mesh.watch_from(&["order"], never).await.snapshot().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_gets_the_latest_state_once() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    for _ in 0..500 {
        mesh.set_status(&lease, InstanceStatus::Draining).await.expect("the lease is held");
        mesh.set_status(&lease, InstanceStatus::NotServing).await.expect("the lease is held");
    }
    let Event::Change(change) = watch.event().await else { panic!("a change was expected") };
    let statuses: Vec<_> = change.updated.iter().map(Instance::status).collect();
    assert_eq!(statuses, [InstanceStatus::NotServing]);
    assert!(matches!(watch.event().await, Event::Progress(_)), "nothing was queued behind it");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_slept_through_too_many_departures_gets_a_snapshot() {
    let mut mesh = Mesh::start();
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    for n in 0..=MAX_TOMBSTONES {
        let lease = mesh.register("order", &n.to_string()).await;
        mesh.deregister(&lease).await;
    }
    assert_eq!(services(&watch.snapshot().await), [("order", true, vec![])]);
}

#[tokio::test(start_paused = true)]
async fn marks_keep_the_resume_point_of_a_quiet_watch_young() {
    let mut mesh = Mesh::start();
    let mut watch = mesh.watch(&["order"]).await;
    watch.snapshot().await;
    let start = Instant::now();
    let lease = mesh.register("customer", "a").await;

    let mark = watch.response().await;

    assert!(matches!(mark.event, Some(Event::Progress(_))));
    assert_eq!(mark.revision, lease.revision);
    assert!(start.elapsed() - PROGRESS_INTERVAL <= Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_is_provisional_and_its_end_brings_a_snapshot_that_is_not() {
    let mut mesh = Mesh::with_grace(DEFAULT_GRACE);
    let start = Instant::now();
    let mut watch = mesh.watch(&["order"]).await;
    assert!(watch.snapshot().await.provisional);
    mesh.register("order", "a").await;
    assert_eq!(watch.change().await, (vec!["a".into()], vec![]));
    let mut renewals = mesh.keep_alive().await;
    let lease = mesh.register("order", "b").await;
    watch.change().await;
    let snapshot = loop {
        assert_eq!(renewals.renew(&lease).await, LeaseState::Renewed);
        match watch.event().await {
            Event::Snapshot(snapshot) => break snapshot,
            Event::Progress(_) | Event::Change(_) => assert!(start.elapsed() <= DEFAULT_GRACE),
        }
    };
    assert!(!snapshot.provisional);
    assert_eq!(services(&snapshot), [("order", true, vec!["b"])]);
    assert!(start.elapsed() - DEFAULT_GRACE <= Duration::from_millis(1));
    assert!(!mesh.watch(&["order"]).await.snapshot().await.provisional);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_away_at_the_end_of_grace_gets_the_snapshot_when_it_resumes() {
    let mut mesh = Mesh::with_grace(DEFAULT_GRACE);
    let first = mesh.watch(&["order"]).await.response().await;
    sleep(DEFAULT_GRACE + Duration::from_millis(1)).await;
    let snapshot = mesh.watch_from(&["order"], point(&first)).await.snapshot().await;
    assert!(!snapshot.provisional);
}

#[tokio::test(start_paused = true)]
async fn without_grace_nothing_is_provisional() {
    assert!(!Mesh::start().watch(&[]).await.snapshot().await.provisional);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_instances_is_known_and_one_that_never_was_is_not() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    mesh.deregister(&lease).await;
    let snapshot = mesh.watch(&["order", "nobody", "order"]).await.snapshot().await;
    assert_eq!(services(&snapshot), [("nobody", false, vec![]), ("order", true, vec![])]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_all_sees_services_that_come_later() {
    let mut mesh = Mesh::start();
    let mut watch = mesh.watch(&[]).await;
    assert!(watch.snapshot().await.services.is_empty());
    mesh.register("order", "a").await;
    assert_eq!(watch.change().await, (vec!["a".into()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_watch_with_unavailable() {
    let mut mesh = Mesh::start();
    let mut watch = mesh.watch(&[]).await;
    watch.snapshot().await;
    mesh.draining.cancel();
    assert_eq!(watch.next().await.expect_err("it ends").code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_watch_too_many_is_refused_until_another_ends() {
    let mut mesh = Mesh::start();
    let mut watches = Vec::new();
    for _ in 0..MAX_WATCHES {
        watches.push(mesh.watch(&["order"]).await);
    }
    let refused = mesh.client.watch(WatchRequest::default()).await.expect_err("it is full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let reason = refused.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!(reason.as_deref(), Some("TOO_MANY_WATCHES"));

    watches.pop();

    mesh.watch(&["order"]).await.snapshot().await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_for_callers_in_this_process_is_the_one_on_the_wire() {
    use meshwork::contract::meshwork::registry::v1::registry_service_server::RegistryService as _;
    let registry = Registry::new(
        Arc::new(Memory::new(DEFAULT_GRACE, PolicyStore::default())),
        CancellationToken::new(),
        TlsMode::Plain,
    );
    let client = &mut Client::new(RegistryServer::new(registry.clone()));
    client.register(request("order", "a")).await.expect("there is room");

    let here = registry.watch(tonic::Request::new(WatchRequest::default())).await.expect("there is room");
    let wire = client.watch(WatchRequest::default()).await.expect("there is room");

    let here = here.into_inner().next().await.expect("a first response").expect("no error");
    assert_eq!(here, wire.into_inner().next().await.expect("a first response").expect("no error"));
}
