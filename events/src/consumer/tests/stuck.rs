//! Events that a partition does not get over: which they are is said, those before them and beside them go on, and so does the
//! partition as soon as what was wrong is put right.

use futures_util::FutureExt as _;

use super::*;
use crate::consumer::{EventName, Snapshot, Stuck};

/// Keys of two partitions.
const POISONED: u128 = 0;
const HEALTHY: u128 = 2;

on_both_stores!(
    an_event_that_cannot_be_read_stops_its_partition_and_no_other,
    an_event_on_which_the_rules_panic_stops_its_partition_and_no_other,
    an_event_that_the_rules_refuse_stops_its_partition_until_they_accept_it,
    what_the_store_refuses_is_tried_again_until_the_store_accepts_it,
    an_event_of_a_later_schema_version_stops_its_partition_and_no_other,
    a_row_of_the_log_that_cannot_be_read_holds_up_its_own_partition_and_no_other,
    an_event_that_is_missing_holds_up_its_own_partition_and_no_other,
    one_event_that_the_store_refuses_holds_up_its_own_partition_and_no_other,
);

async fn until(subscription: &Subscription, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let patience = Patience::begin();
    loop {
        let snapshot = subscription.progress().snapshot();
        if is(&snapshot) {
            return snapshot;
        }
        patience.check("it comes to that").await;
    }
}

fn partition_of_key(key: u128) -> u32 {
    partition_of(Uuid::from_u128(key))
}

/// An event of `kind` between two good ones, in one batch. Returns what is said of it once it has stopped its partition.
async fn stop_between_two(fixture: &Fixture, kind: &str) -> (Subscription, Stuck) {
    let partition = partition_of_key(POISONED);
    assert_ne!(partition, partition_of_key(HEALTHY));
    produce(&fixture.producer, [POISONED], "before").await;
    produce(&fixture.producer, [POISONED], kind).await;
    produce(&fixture.producer, [POISONED, HEALTHY], "after").await;
    let subscription = fixture.subscribe(&CancellationToken::new());

    let stopped = until(&subscription, |snapshot| snapshot.stuck.contains_key(&partition)).await;
    assert_eq!(stopped.stuck.len(), 1);
    let healthy = Position { partition: partition_of_key(HEALTHY), position: 1 };
    for at in [healthy, Position { partition, position: 1 }] {
        until(&subscription, |snapshot| snapshot.applied[at.partition as usize] >= at.position).await;
    }
    assert_eq!(fixture.cursor(partition).await, 1, "the one before has its effect, and nothing is skipped");
    (subscription, stopped.stuck[&partition].clone())
}

async fn expect_poison(fixture: &Fixture, kind: &str, reason: &str) -> Subscription {
    let (subscription, stuck) = stop_between_two(fixture, kind).await;
    let at = Position { partition: partition_of_key(POISONED), position: 1 };
    let event = fixture.producer.read(at, 1).await.expect("readable")[0].clone();
    let event = EventName {
        event_id: event.event_id.clone(),
        event_type: "meshwork.registry.v1.Service".into(),
        aggregate: ("thing".into(), kind.into()),
    };
    assert_eq!(stuck, Stuck { event: Some(event.clone()), position: 2, reason: reason.into(), poison: true });
    let SubscriptionState::Stopped(problem) = subscription.progress().snapshot().state else {
        panic!("it needs a person")
    };
    for part in [&event.event_id, "meshwork.registry.v1.Service", kind, "position 2", reason] {
        assert!(problem.contains(part), "{part} in {problem}");
    }
    let patience = Patience::begin();
    while subscription.condition().problem().is_none_or(|said| *said != *problem) {
        patience.check("its health says so").await;
    }
    subscription
}

async fn an_event_that_cannot_be_read_stops_its_partition_and_no_other(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    expect_poison(&fixture, POISON, "cannot be read").await;
}

async fn an_event_on_which_the_rules_panic_stops_its_partition_and_no_other(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    expect_poison(&fixture, DEFECT, "a defect: the code that decides or stores has panicked").await;
}

async fn an_event_that_the_rules_refuse_stops_its_partition_until_they_accept_it(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let subscription = expect_poison(&fixture, FORBIDDEN, "it is forbidden").await;
    fixture.operate("insert into seen (partition, position) values (99, 99)").await;
    subscription.again().notify_one();
    until(&subscription, |snapshot| snapshot.stuck.is_empty() && snapshot.state == SubscriptionState::Running).await;
    fixture.expect_all_applied().await;
    let patience = Patience::begin();
    while subscription.condition().problem().is_some() {
        patience.check("its health says so").await;
    }
}

async fn what_the_store_refuses_is_tried_again_until_the_store_accepts_it(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    produce(&fixture.producer, 0..100, "").await;
    fixture.expect_all_applied().await;

    fixture.operate("alter table seen rename to hidden").await;
    produce(&fixture.producer, 0..100, "").await;
    let refused = until(&subscription, |snapshot| !snapshot.stuck.is_empty()).await;
    assert!(refused.stuck.values().all(|stuck| !stuck.poison && stuck.event.is_some()), "{:?}", refused.stuck);
    assert!(matches!(refused.state, SubscriptionState::Retrying(_)), "{:?}", refused.state);
    assert!(subscription.progress().oldest_unread().is_some());

    fixture.operate("alter table hidden rename to seen").await;
    until(&subscription, |snapshot| snapshot.stuck.is_empty()).await;
    fixture.expect_all_applied().await;
    assert_eq!(subscription.progress().snapshot().state, SubscriptionState::Running);
}

async fn an_event_of_a_later_schema_version_stops_its_partition_and_no_other(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [POISONED, POISONED, HEALTHY], "").await;
    let partition = partition_of_key(POISONED);
    past::run(&fixture.producer, &["update outbox set schema_version = 2 where position = 2"]).await;
    let source = past::reopened(&fixture.producer).await;
    let subscription = fixture.subscribe_to(&source, &CancellationToken::new());
    let stopped = until(&subscription, |snapshot| snapshot.stuck.contains_key(&partition)).await;
    let stuck = &stopped.stuck[&partition];
    assert!(stuck.poison && stuck.reason.contains("schema_version is 2"), "{stuck:?}");
    until(&subscription, |snapshot| snapshot.applied[partition_of_key(HEALTHY) as usize] == 1).await;
}

async fn a_row_of_the_log_that_cannot_be_read_holds_up_its_own_partition_and_no_other(engine: Engine) {
    let repair = "update outbox set aggregate_version = 1";
    row_that_cannot_be_sent(
        &engine,
        "update outbox set aggregate_version = -1 where position = 2 and partition = 5",
        repair,
    )
    .await;
}

async fn an_event_that_is_missing_holds_up_its_own_partition_and_no_other(engine: Engine) {
    let gone = "update outbox set position = 1000000 where position = 2 and partition = 5";
    row_that_cannot_be_sent(&engine, gone, "update outbox set position = 2 where position = 1000000").await;
}

async fn row_that_cannot_be_sent(engine: &Engine, damage: &'static str, repair: &'static str) {
    let fixture = Fixture::new(engine).await;
    produce(&fixture.producer, [POISONED, POISONED, POISONED, HEALTHY, HEALTHY], "").await;
    let partition = partition_of_key(POISONED);
    assert_eq!(partition, 5, "as the statement has it");
    past::run(&fixture.producer, &[damage]).await;
    let source = past::reopened(&fixture.producer).await;
    let subscription = fixture.subscribe_to(&source, &CancellationToken::new());
    until(&subscription, |snapshot| {
        let healthy = snapshot.applied[partition_of_key(HEALTHY) as usize] == 2;
        healthy && snapshot.applied[partition as usize] == 1
    })
    .await;
    assert!(subscription.progress().oldest_unread().is_some(), "which its health says once it is 30 s");
    past::run(&fixture.producer, &[repair]).await;
    subscription.again().notify_one();
    fixture.expect_all_applied().await;
}

async fn one_event_that_the_store_refuses_holds_up_its_own_partition_and_no_other(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let (_subscription, stuck) = stop_between_two(&fixture, UNSTORABLE).await;
    assert!(!stuck.poison && stuck.reason.to_lowercase().contains("check constraint"), "{stuck:?}");
    assert_eq!(stuck.position, 2);
}

/// Waits while the clock goes on, by hand: the writer's thread keeps a paused clock from going on by itself.
async fn as_time_passes<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        for _ in 0..200 {
            tokio::task::yield_now().await;
            if let Some(done) = work.as_mut().now_or_never() {
                return done;
            }
        }
        tokio::time::advance(Duration::from_millis(250)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_stopped_is_tried_now_and_then() {
    let fixture = Fixture::new(&Engine::Sqlite).await;
    let (subscription, _) = as_time_passes(stop_between_two(&fixture, FORBIDDEN)).await;
    fixture.operate("insert into seen (partition, position) values (99, 99)").await;
    as_time_passes(until(&subscription, |snapshot| snapshot.stuck.is_empty())).await;
    as_time_passes(fixture.expect_all_applied()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_find_its_cursors_is_not_well_until_it_does() {
    let fixture = Fixture::new(&Engine::Sqlite).await;
    fixture.operate("alter table consumer_group rename to hidden").await;
    produce(&fixture.producer, 0..10, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    let patience = Patience::begin();
    let problem = as_time_passes(async {
        loop {
            match subscription.condition().problem() {
                Some(problem) => break problem,
                None => patience.check("its health says so").await,
            }
        }
    })
    .await;
    assert!(problem.contains("cursors cannot be found") && problem.contains("consumer_group"), "{problem}");
    assert!(matches!(subscription.progress().snapshot().state, SubscriptionState::Retrying(_)));

    fixture.operate("alter table hidden rename to consumer_group").await;
    as_time_passes(fixture.expect_all_applied()).await;
    as_time_passes(async {
        while subscription.condition().problem().is_some() {
            patience.check("its health says so").await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_unread_for_long_is_said_of_its_reader() {
    let fixture = Fixture::new(&Engine::Sqlite).await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    produce(&fixture.producer, 0..100, "").await;
    as_time_passes(fixture.expect_all_applied()).await;
    fixture.operate("alter table seen rename to hidden").await;
    produce(&fixture.producer, 0..1, "").await;
    let patience = Patience::begin();
    as_time_passes(async {
        while subscription.condition().problem().is_none() {
            patience.check("its health says so").await;
        }
    })
    .await;
    let problem = subscription.condition().problem().expect("just seen");
    assert!(problem.contains("unread for") && problem.contains("position"), "{problem}");
}
