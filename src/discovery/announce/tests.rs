//! The announcing task against a registry in the same process, on a paused clock.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{
    fake::{Fake, State, TTL},
    *,
};
use crate::{
    contract::meshwork::registry::v1::{Instance, LeaseState},
    discovery::RegistryState,
};

/// Bounds a wait that must not be in vain; on a paused clock it takes no real time.
async fn soon<F: Future>(work: F) -> F::Output {
    timeout(Duration::from_secs(3600), work).await.expect("within an hour")
}

fn start(registry: &Fake) -> Announcer {
    Announcer::start(registry.client(), Gate::default(), registration())
}

fn registration() -> Registration {
    let instance = Instance {
        service: "order".into(),
        instance_id: "a".into(),
        status: InstanceStatus::Serving.into(),
        ..Instance::default()
    };
    Registration { instance, methods: ["a.B/Get".to_owned()].into(), lease_ttl: TTL }
}

#[tokio::test(start_paused = true)]
async fn an_instance_joins_changes_its_status_and_leaves() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    assert_eq!(registry.until(|state| state.registrations == 1).await.statuses(), [InstanceStatus::Serving]);

    let told = announcer.set_status(InstanceStatus::Draining).await.expect("confirmed");

    let expected = Announced { status: InstanceStatus::Draining, epoch: "life-0".into(), revision: 2 };
    assert_eq!(told, expected);
    assert_eq!(registry.0.borrow().statuses(), [InstanceStatus::Draining]);
    announcer.leave().await;
    assert!(registry.0.borrow().leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_at_a_third_of_its_time_on_one_stream() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    let begin = Instant::now();
    let state = registry.until(|state| state.renewals == 7).await;
    assert_eq!(begin.elapsed(), TTL * 2);
    assert_eq!((state.streams, state.registrations), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_registry_the_instance_is_registered_again_as_it_is_now() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    announcer.set_status(InstanceStatus::NotServing).await.expect("confirmed");

    registry.change(|state| {
        state.leases.clear();
        state.methods.clear();
        state.life += 1;
    });

    let state = registry.until(|state| state.registrations == 2).await;
    assert_eq!(state.statuses(), [InstanceStatus::NotServing]);
    assert_eq!(state.methods, ["a.B/Get"]);
    let state = registry.until(|state| state.renewals > 5).await;
    assert_eq!(state.registrations, 2, "once, and then renewed");
}

#[tokio::test(start_paused = true)]
async fn the_first_registration_after_a_lost_lease_waits_for_100_ms_at_most() {
    for away in [Duration::ZERO, Duration::from_secs(60)] {
        let registry = Fake::new(State::default());
        let _announcer = start(&registry);
        registry.until(|state| state.renewals == 1).await;
        registry.change(|state| {
            state.leases.clear();
            state.life += 1;
            state.away = true;
        });
        sleep(away).await;
        registry.change(|state| state.away = false);

        registry.until(|state| state.renewals == 2).await;
        let lost = Instant::now();
        registry.until(|state| state.registrations == 2).await;
        // The timer's granularity is a millisecond.
        assert!(lost.elapsed() <= Duration::from_millis(101), "away for {away:?}: {:?}", lost.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_knows_its_own_leases_is_not_asked_without_pause() {
    let registry = Fake::new(State { answers: Some(LeaseState::Unknown.into()), ..State::default() });
    let _announcer = start(&registry);
    sleep(Duration::from_secs(60)).await;
    let registrations = registry.0.borrow().registrations;
    // Waits of 0.1, 0.2 ... 3.2 s and then 5 s, of which jitter takes half at most.
    assert!((10..=32).contains(&registrations), "{registrations}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_later_contract_is_a_broken_stream_and_no_lost_lease() {
    let registry = Fake::new(State { answers: Some(1234), ..State::default() });
    let _announcer = start(&registry);
    sleep(Duration::from_secs(60)).await;
    let state = registry.0.borrow().clone();
    assert_eq!(state.registrations, 1);
    assert!((10..=32).contains(&state.streams), "{}", state.streams);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_alone_is_opened_again_without_a_registration() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.life += 1);
    let state = registry.until(|state| state.renewals == 4).await;
    assert_eq!((state.streams, state.registrations), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_is_registered_again() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.leases.clear());
    assert_eq!(registry.until(|state| state.registrations == 2).await.leases.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_registrations_of_a_process_are_numbered_so_that_a_late_one_does_not_fence_a_later_one() {
    let registry = Fake::new(State { refuses: Some((Code::Unavailable, "busy")), ..State::default() });
    let (_first, _second) = (start(&registry), start(&registry));
    let State { attempts, .. } = registry.until(|state| state.refusals == 6).await;
    let mut holders: Vec<&String> = attempts.iter().map(|(holder, _)| holder).collect();
    holders.sort();
    holders.dedup();
    assert_eq!(holders.len(), 2, "each announcer is distinguishable");
    for holder in holders {
        let numbers: Vec<u64> = attempts.iter().filter(|(of, _)| of == holder).map(|(_, number)| *number).collect();
        assert!(numbers.len() > 1 && numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_registry_is_retried_and_found_when_it_is_back() {
    let registry = Fake::new(State { away: true, ..State::default() });
    let _announcer = start(&registry);
    tokio::time::advance(Duration::from_secs(60)).await;
    registry.change(|state| state.away = false);
    let back = Instant::now();
    registry.until(|state| state.registrations == 1).await;
    assert!(back.elapsed() <= Duration::from_secs(5), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_changed_while_the_registry_was_unreachable_is_confirmed_when_it_is_back() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| {
        state.away = true;
        state.life += 1;
    });
    let registry_later = registry.clone();
    let back = async move {
        sleep(Duration::from_secs(60)).await;
        registry_later.change(|state| state.away = false);
    };
    let (told, ()) = tokio::join!(announcer.set_status(InstanceStatus::Draining), back);
    assert_eq!(told.expect("confirmed").status, InstanceStatus::Draining);
    assert_eq!(registry.0.borrow().statuses(), [InstanceStatus::Draining]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_falls_silent_is_asked_on_another_stream() {
    let registry = Fake::new(State::default());
    let _announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.silent = true);
    registry.until(|state| state.streams == 2).await;
    registry.change(|state| state.silent = false);
    let renewals = registry.0.borrow().renewals;
    let state = registry.until(|state| state.renewals > renewals + 3).await;
    assert_eq!(state.registrations, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_instance_stops_and_does_not_fight_for_its_id() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.fenced = state.leases.keys().cloned().collect());

    let error = soon(announcer.failed()).await;

    assert!(matches!(&error, AnnounceError::Fenced { instance_id, .. } if instance_id == "a"), "{error}");
    assert_eq!(registry.0.borrow().registrations, 1);
    assert_eq!(soon(announcer.set_status(InstanceStatus::Draining)).await, None, "no registration can confirm it");
}

#[tokio::test(start_paused = true)]
async fn a_status_told_under_a_lost_lease_does_not_take_the_id_back_from_another() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    registry.until(|state| state.renewals == 1).await;
    registry.change(|state| state.fenced = std::mem::take(&mut state.leases).into_keys().collect());

    assert_eq!(soon(announcer.set_status(InstanceStatus::Draining)).await, None);

    assert_eq!(registry.0.borrow().registrations, 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_the_registry_refuses_says_why() {
    let registry =
        Fake::new(State { refuses: Some((Code::InvalidArgument, "service: must be a name")), ..State::default() });
    let error = soon(start(&registry).failed()).await;
    assert!(
        matches!(&error, AnnounceError::Refused { source, .. } if source.message().contains("must be a name")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_another_store_says_so_and_joins_as_soon_as_it_is_admitted() {
    let refuses = Some((Code::FailedPrecondition, "order is served from store a"));
    let registry = Fake::new(State { refuses, ..State::default() });
    let announcer = start(&registry);
    registry.until(|state| state.refusals == 3).await;
    let problem = announcer.admission.problem().expect("it is refused");
    assert!(problem.contains("order is served from store a"), "{problem}");

    registry.change(|state| state.refuses = None);

    let state = registry.until(|state| state.registrations == 1).await;
    let (first, later) = state.refused_before.split_first().expect("it has come");
    assert!(!first && later.iter().all(|refused| *refused), "a restarted registry learns of it: {state:?}");
    let mut admission = announcer.admission.clone();
    soon(async {
        while admission.problem().is_some() {
            admission.changed().await;
        }
    })
    .await;
    announcer.leave().await;
}

#[tokio::test(start_paused = true)]
async fn leaving_an_unreachable_registry_takes_a_second_at_most() {
    for away_from_the_start in [true, false] {
        let registry = Fake::new(State { away: away_from_the_start, ..State::default() });
        let announcer = start(&registry);
        if !away_from_the_start {
            registry.until(|state| state.renewals == 1).await;
            registry.change(|state| {
                state.away = true;
                state.life += 1;
            });
        }
        let begin = Instant::now();
        announcer.leave().await;
        assert!(begin.elapsed() <= Duration::from_secs(1));
        assert_eq!(Arc::strong_count(&registry.0), 1, "the task and its streams are gone");
    }
}

/// The registries of a list, each with its announcer, and how they stand.
fn start_at(registries: &[Fake], states: &[RegistryState]) -> (Announcers, watch::Sender<Vec<RegistryState>>) {
    let states = watch::Sender::new(states.to_vec());
    let gates = Gate::to_all(registries.len(), &states.subscribe());
    let announcer = |(registry, gate): (&Fake, Gate)| Announcer::start(registry.client(), gate, registration());
    (Announcers::new(registries.iter().zip(gates).map(announcer).collect()), states)
}

fn there(epoch: &str) -> RegistryState {
    RegistryState::There(epoch.into())
}

#[tokio::test(start_paused = true)]
async fn an_instance_registers_at_each_registry_of_the_list_that_is_a_separate_store() {
    let registries = [(); 3].map(|()| Fake::new(State::default()));
    let (announcers, states) = start_at(&registries, &[there("e"), RegistryState::Away, RegistryState::Same]);
    registries[0].until(|state| state.renewals > 3).await;
    let registrations = || registries.each_ref().map(|registry| registry.0.borrow().registrations);
    assert_eq!(registrations(), [1, 0, 0], "not where it is unknown whether that is the same store");

    states.send_replace(vec![there("e"), there("f"), RegistryState::Same]);
    registries[1].until(|state| state.renewals > 3).await;
    assert_eq!(registrations(), [1, 1, 0]);
    announcers.leave().await;
    assert!(registries.iter().all(|registry| registry.0.borrow().leases.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_announced_to_all_registries_and_waits_for_those_that_are_there() {
    let registries = [(); 2].map(|()| Fake::new(State::default()));
    let (mut announcers, _states) = start_at(&registries, &[there("e"), there("f")]);
    for registry in &registries {
        registry.until(|state| state.renewals > 0).await;
    }
    registries[1].change(|state| {
        state.away = true;
        state.life += 1;
    });
    tokio::time::sleep(TTL).await;
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let note: Seen = Box::new(move |announced| {
        noted.lock().push(announced.status);
        Box::pin(std::future::ready(()))
    });
    soon(announcers.set_status(InstanceStatus::Draining, &note)).await;
    assert_eq!(*seen.lock(), [InstanceStatus::Draining]);

    registries[1].change(|state| state.away = false);
    registries[1].until(|state| state.statuses() == [InstanceStatus::Draining]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_instance_itself_has_taken_over_through_another_registry_is_no_end() {
    let registries = [(); 2].map(|()| Fake::new(State::default()));
    let (mut announcers, states) = start_at(&registries, &[there("life-0"), RegistryState::Same]);
    registries[0].until(|state| state.renewals > 0).await;
    // The first is unreachable for a moment, the second stands for the store, and the first then says what became of its lease.
    states.send_replace(vec![RegistryState::Away, there("life-0")]);
    registries[1].until(|state| state.renewals > 0).await;
    registries[0].change(|state| state.fenced = state.leases.keys().cloned().collect());
    assert!(timeout(TTL * 3, announcers.failed()).await.is_err(), "no other instance has taken its place");
    assert_eq!(registries[0].0.borrow().registrations, 1, "and it is not fought over");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_may_not_serve_any_more_leaves_and_tries_again() {
    let registry = Fake::new(State::default());
    let mut announcer = start(&registry);
    announcer.set_status(InstanceStatus::NotServing).await.expect("confirmed");
    registry.change(|state| state.refuses = Some((Code::FailedPrecondition, "another store is served")));
    let mut admission = announcer.admission.clone();
    assert!(admission.problem().is_none());

    let serving = announcer.set_status(InstanceStatus::Serving);
    soon(admission.changed()).await;
    assert!(admission.problem().is_some_and(|problem| problem.contains("another store is served")));
    registry.until(|state| state.leases.is_empty() && state.refusals > 2).await;
    registry.change(|state| state.refuses = None);
    soon(serving).await.expect("confirmed");
    assert_eq!(registry.0.borrow().statuses(), [InstanceStatus::Serving]);
    assert!(announcer.admission.problem().is_none());
}
