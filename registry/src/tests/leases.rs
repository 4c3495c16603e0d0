//! What a lease promises.

use meshwork::{
    contract::meshwork::registry::v1::{ListInstancesRequest, ListServicesRequest},
    instance::DEFAULT_LEASE_TTL,
};
use tokio::time::sleep;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!(info.domain, "registry.meshwork");
    info.reason.clone()
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_answered_with_what_watchers_will_see() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    assert_eq!(lease.lease_ttl, Some(prost_types::Duration { seconds: 10, nanos: 0 }));
    let instance = lease.instance.expect("the instance as registered");
    assert_eq!((instance.weight, instance.status()), (100, InstanceStatus::Serving));
    assert!(instance.create_time.is_some());
    assert!(lease.revision > 0);
    uuid::Uuid::try_parse(&lease.epoch).expect("an epoch is a UUID");
}

#[tokio::test(start_paused = true)]
async fn a_lease_id_cannot_be_guessed_because_it_is_random_but_for_its_instance() {
    let mut mesh = Mesh::start();
    let nonce = |lease: &Lease| {
        let (nonce, instance) = lease.lease_id.split_once('/').expect("two parts");
        assert_eq!(instance, "order/a");
        uuid::Uuid::try_parse(nonce).expect("a UUID")
    };
    let (one, other) = (mesh.register("order", "a").await, mesh.register("order", "a").await);
    assert_ne!(nonce(&one), nonce(&other));
    // Only version 4 is random as a whole (RFC 9562, 5.4).
    assert_eq!([&one, &other].map(|lease| nonce(lease).get_version()), [Some(uuid::Version::Random); 2]);
}

#[tokio::test(start_paused = true)]
async fn renewals_keep_an_instance_and_their_end_removes_it() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    let mut renewals = mesh.keep_alive().await;
    for _ in 0..5 {
        sleep(DEFAULT_LEASE_TTL - Duration::from_millis(10)).await;
        assert_eq!(renewals.renew(&lease).await, LeaseState::Renewed);
    }
    sleep(DEFAULT_LEASE_TTL + Duration::from_millis(1)).await;
    assert_eq!(renewals.renew(&lease).await, LeaseState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn every_renewal_is_answered_in_order() {
    let mut mesh = Mesh::start();
    let (a, b) = (mesh.register("order", "a").await, mesh.register("order", "b").await);
    let mut renewals = mesh.keep_alive().await;
    let asked = [&a.lease_id, "no lease at all", &b.lease_id, &a.lease_id];
    asked.iter().for_each(|lease_id| renewals.send(lease_id));
    for lease_id in asked {
        assert_eq!(renewals.next().await.expect("an answer").expect("no error").lease_id, lease_id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_holder_learns_that_it_is_fenced_and_can_change_nothing() {
    let mut mesh = Mesh::start();
    let older = mesh.register("order", "a").await;
    let newer = mesh.register("order", "a").await;
    let mut renewals = mesh.keep_alive().await;

    assert_eq!(renewals.renew(&older).await, LeaseState::Fenced);
    let refused = mesh.set_status(&older, InstanceStatus::Draining).await.expect_err("it is fenced");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_LEASE"));
    mesh.deregister(&older).await;

    assert_eq!(renewals.renew(&newer).await, LeaseState::Renewed);
    assert_eq!(services(&mesh.watch(&["order"]).await.snapshot().await), [("order", true, vec!["a"])]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_life_of_the_registry_must_be_registered_again() {
    let lease = Mesh::start().register("order", "a").await;
    let mut restarted = Mesh::start();
    assert_eq!(restarted.keep_alive().await.renew(&lease).await, LeaseState::Unknown);
    let refused = restarted.set_status(&lease, InstanceStatus::Draining).await.expect_err("it is unknown");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_LEASE"));
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_renewals_ends_when_its_client_ends_it() {
    let mut mesh = Mesh::start();
    let Renewals { requests, mut responses } = mesh.keep_alive().await;
    drop(requests);
    let end = timeout(LIMIT, responses.next()).await.expect("it ends");
    assert!(end.is_none(), "not with an error: {end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_stream_of_renewals_with_unavailable() {
    let mut mesh = Mesh::start();
    let mut renewals = mesh.keep_alive().await;
    mesh.draining.cancel();
    assert_eq!(renewals.next().await.expect("an end").expect_err("it ends").code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_registry_keeps_what_could_not_reach_it() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    sleep(Duration::from_millis(100)).await;

    tokio::time::advance(Duration::from_secs(120)).await;

    assert_eq!(mesh.keep_alive().await.renew(&lease).await, LeaseState::Renewed);
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_that_cover_everything_once() {
    let mut mesh = Mesh::start();
    for n in 0..5 {
        mesh.register("order", &format!("i{n}")).await;
        mesh.register(&format!("s{n}"), "a").await;
    }
    let (mut names, mut ids, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListServicesRequest { page_size: 4, page_token: token };
        let page = mesh.client.list_services(request).await.expect("a page").into_inner();
        names.extend(page.services.into_iter().map(|service| (service.name, service.instance_count)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    loop {
        let request = ListInstancesRequest { service: "order".into(), page_size: 2, page_token: token };
        let page = mesh.client.list_instances(request).await.expect("a page").into_inner();
        ids.extend(page.instances.into_iter().map(|instance| instance.instance_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected = [("order", 5), ("s0", 1), ("s1", 1), ("s2", 1), ("s3", 1), ("s4", 1)];
    assert_eq!(names, expected.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(ids, ["i0", "i1", "i2", "i3", "i4"]);
}

#[tokio::test(start_paused = true)]
async fn a_known_service_without_instances_is_an_empty_list_and_an_unknown_one_is_not_found() {
    let mut mesh = Mesh::start();
    let lease = mesh.register("order", "a").await;
    mesh.deregister(&lease).await;
    let list = |service: &str| ListInstancesRequest { service: service.into(), ..Default::default() };
    assert!(mesh.client.list_instances(list("order")).await.expect("known").into_inner().instances.is_empty());
    let refused = mesh.client.list_instances(list("nobody")).await.expect_err("unknown");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_SERVICE"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_renews_nothing_while_the_longest_lease_would_run_out_is_ended() {
    let mut mesh = Mesh::start();
    let mut renewals = mesh.keep_alive().await;
    let begin = tokio::time::Instant::now();
    let end = renewals.next().await.expect("told").expect_err("ended");
    assert_eq!((end.code(), begin.elapsed().as_secs()), (tonic::Code::DeadlineExceeded, 300));
}
