//! The way back for a reader whose source was set back to a backup, as an operator calls it.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use meshwork::contract::meshwork::event::v1::{
    ListSubscriptionsRequest, ReconcileSubscriptionRequest, ReconcileSubscriptionResponse, SubscriptionStatus,
    operations_service_client::OperationsServiceClient, operations_service_server::OperationsServiceServer,
};

use super::{
    past::{BACKUP, RESTORE, reopened, run, set_back},
    *,
};
use crate::consumer::reconcile::Forks;

on_both_stores!(
    a_reader_of_a_source_that_was_set_back_is_brought_back_with_nothing_lost_and_nothing_twice,
    a_reader_can_begin_again_where_it_has_thrown_away_what_it_had,
    a_dry_run_changes_nothing,
    a_source_that_was_moved_to_another_store_with_all_its_events_has_lost_nothing,
    of_a_cursor_of_0_1_nothing_is_believed_that_cannot_be_checked,
    a_source_whose_clock_went_back_is_told_apart_by_the_time_of_its_backup,
    what_was_pruned_cannot_be_reconciled,
    cursors_that_are_read_on_before_they_are_held_are_looked_at_anew,
    of_two_operators_at_a_time_one_reconciles_and_the_other_undoes_nothing,
    a_reconcile_that_was_cut_off_is_finished_by_the_next,
    an_operator_sees_each_subscription_and_what_holds_it_up,
);

/// Deletes what was seen behind the forks, or in their partitions as a whole.
struct Forget {
    database: crate::store::Database,
    wholly: bool,
    /// Begins when it may.
    gate: Arc<tokio::sync::Semaphore>,
}

#[tonic::async_trait]
impl Undo for Forget {
    async fn undo(&self, lost: &Lost) -> Result<Undone, Status> {
        let mut count = 0;
        let _turn = self.gate.acquire().await.expect("open");
        let mut tx = self.database.begin().await.expect("begun");
        lost.lock(&mut *tx).await?;
        for fork in lost.forks() {
            let kept = if self.wholly { 0 } else { fork.common.at.position };
            let delete = Sql::new("delete from seen where partition = ").arg(i64::from(fork.partition()));
            count += tx.execute(delete.push(" and position > ").arg(kept as i64)).await.expect("deleted");
        }
        if !lost.validate_only() {
            tx.commit().await.expect("committed");
        }
        Ok(Undone { effects: vec![("seen", count)], from_the_beginning: self.wholly })
    }
}

#[derive(Clone)]
struct Operator(OperationsServiceClient<OperationsServiceServer<Operations>>);

impl Operator {
    fn of(fixture: &Fixture, subscription: &Subscription, wholly: bool) -> Self {
        Self::behind(fixture, subscription, wholly, Arc::new(tokio::sync::Semaphore::new(1)))
    }

    fn behind(fixture: &Fixture, subscription: &Subscription, wholly: bool, gate: Arc<tokio::sync::Semaphore>) -> Self {
        let undo = Forget { database: fixture.consumer.database().clone(), wholly, gate };
        let operations = Operations::new(fixture.consumer.clone()).with(subscription, undo);
        Self(OperationsServiceClient::new(operations.service()))
    }

    async fn ask(&mut self, request: ReconcileSubscriptionRequest) -> Result<ReconcileSubscriptionResponse, Status> {
        let request = ReconcileSubscriptionRequest { source: SOURCE.into(), ..request };
        self.0.reconcile_subscription(request).await.map(tonic::Response::into_inner)
    }

    async fn reconcile(&mut self) -> ReconcileSubscriptionResponse {
        self.ask(ReconcileSubscriptionRequest::default()).await.expect("reconciled")
    }

    async fn subscriptions(&mut self) -> Vec<SubscriptionStatus> {
        let answer = self.0.list_subscriptions(ListSubscriptionsRequest {}).await.expect("told");
        answer.into_inner().subscriptions
    }
}

/// How many events were lost.
fn lost(answer: &ReconcileSubscriptionResponse) -> u64 {
    answer.forks.iter().map(|fork| fork.read_position - fork.common_position).sum()
}

async fn a_reader_of_a_source_that_was_set_back_is_brought_back_with_nothing_lost_and_nothing_twice(engine: Engine) {
    for since in [0, 10, 500] {
        let (fixture, restored) = set_back(&engine, since).await;
        let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
        wait_for_stop(&subscription).await;
        let mut operator = Operator::of(&fixture, &subscription, false);
        assert!(operator.subscriptions().await[0].diverged);

        let answer = operator.reconcile().await;
        assert_eq!((lost(&answer), answer.undone[0].count), (50, 50), "{since}: {answer:?}");
        fixture.expect_all_applied().await;
        let patience = Patience::begin();
        while operator.subscriptions().await[0].diverged {
            patience.check("it is the source's past again").await;
        }
        assert_eq!(operator.reconcile().await.forks, [], "once is enough");
        subscription.stop().await;
    }
}

async fn a_reader_can_begin_again_where_it_has_thrown_away_what_it_had(engine: Engine) {
    let (fixture, restored) = set_back(&engine, 10).await;
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    let answer = Operator::of(&fixture, &subscription, true).reconcile().await;
    assert!(answer.forks.iter().all(|fork| fork.read_again_after == 0 && fork.common_position > 0), "{answer:?}");
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn a_dry_run_changes_nothing(engine: Engine) {
    let (fixture, restored) = set_back(&engine, 10).await;
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    let mut operator = Operator::of(&fixture, &subscription, false);
    let cursors = cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
    let request = ReconcileSubscriptionRequest { validate_only: true, ..ReconcileSubscriptionRequest::default() };
    let told = operator.ask(request).await.expect("reported");
    assert_eq!((lost(&told), told.undone[0].count), (50, 50));
    assert_eq!(cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable"), cursors);
    let done = operator.reconcile().await;
    assert_eq!(done, told, "it has done what the dry run reported");
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn a_source_that_was_moved_to_another_store_with_all_its_events_has_lost_nothing(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    run(&fixture.producer, &["update store set store_id = 'another'"]).await;
    let moved = reopened(&fixture.producer).await;
    let subscription = fixture.subscribe_to(&moved, &CancellationToken::new());
    assert!(wait_for_stop(&subscription).await.contains("another store"));

    let answer = Operator::of(&fixture, &subscription, false).reconcile().await;
    assert_eq!((lost(&answer), answer.undone[0].count), (0, 0), "{answer:?}");
    produce(&moved, 0..50, "").await;
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn of_a_cursor_of_0_1_nothing_is_believed_that_cannot_be_checked(engine: Engine) {
    let (fixture, restored) = set_back(&engine, 0).await;
    run(&fixture.consumer, &["update cursor set event_id = '', event_position = 0"]).await;
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    wait_for_stop(&subscription).await;
    let answer = Operator::of(&fixture, &subscription, false).reconcile().await;
    assert!(answer.forks.iter().all(|fork| fork.common_position == 0 && fork.read_event_id.is_empty()), "{answer:?}");
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

/// An id of that many milliseconds since the Unix epoch.
fn id_at(ms: u64, counter: u64) -> String {
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &[0; 10]).into_uuid();
    Uuid::from_u128(id.as_u128() | u128::from(counter)).to_string()
}

/// Gives the events of a partition behind a position ids that begin at this time.
async fn date(outbox: &Outbox, after: Position, ms: u64) {
    let events = outbox.read(after, 1000).await.expect("readable");
    let mut tx = outbox.database().begin().await.expect("begun");
    for event in events {
        let update =
            Sql::new("update outbox set event_id = ").arg(id_at(ms, event.position)).push(" where position = ");
        tx.execute(update.arg(event.position as i64)).await.expect("dated");
    }
    tx.commit().await.expect("committed");
}

async fn a_source_whose_clock_went_back_is_told_apart_by_the_time_of_its_backup(engine: Engine) {
    const HOUR: u64 = 3_600_000;
    let fixture = Fixture::new(&engine).await;
    let partition = partition_of(Uuid::from_u128(7));
    let [begin, middle] = [0, 10].map(|position| Position { partition, position });
    // Ten events at one o'clock, of which there is a backup, and ten at three.
    produce(&fixture.producer, [7; 10], "").await;
    date(&reopened(&fixture.producer).await, begin, HOUR).await;
    run(&fixture.producer, &BACKUP).await;
    produce(&reopened(&fixture.producer).await, [7; 10], "").await;
    date(&reopened(&fixture.producer).await, middle, 3 * HOUR).await;
    let before = reopened(&fixture.producer).await;
    let subscription = fixture.subscribe_to(&before, &CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    // The clock of the restored source says two.
    run(&fixture.producer, &RESTORE).await;
    produce(&reopened(&fixture.producer).await, [7; 5], "").await;
    date(&reopened(&fixture.producer).await, middle, 2 * HOUR).await;
    let restored = reopened(&fixture.producer).await;

    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    let mut operator = Operator::of(&fixture, &subscription, false);
    let backup_time = Some(prost_types::Timestamp { seconds: 3600 + 60, nanos: 0 });
    let request = ReconcileSubscriptionRequest { backup_time, ..ReconcileSubscriptionRequest::default() };
    let answer = operator.ask(request).await.expect("reconciled");
    assert_eq!((answer.forks[0].common_position, answer.undone[0].count), (10, 10), "{answer:?}");
    fixture.expect_all_applied().await;
    subscription.stop().await;

    let before_1970 = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    let request = ReconcileSubscriptionRequest { backup_time: before_1970, ..ReconcileSubscriptionRequest::default() };
    assert_eq!(operator.ask(request).await.expect_err("no such time").code(), Code::InvalidArgument);
}

async fn what_was_pruned_cannot_be_reconciled(engine: Engine) {
    let (fixture, restored) = set_back(&engine, 500).await;
    run(&fixture.producer, &["delete from outbox"]).await;
    let pruned =
        "insert into outbox_base (partition, position, event_id) select partition, next - 1, 'last' from outbox_head";
    run(&fixture.producer, &[pruned]).await;
    drop(restored);
    let pruned = reopened(&fixture.producer).await;
    let subscription = fixture.subscribe_to(&pruned, &CancellationToken::new());
    wait_for_stop(&subscription).await;
    let mut operator = Operator::of(&fixture, &subscription, false);
    let refused = operator.ask(ReconcileSubscriptionRequest::default()).await.expect_err("nothing to go back to");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    subscription.stop().await;

    // Also before the first event.
    run(&fixture.consumer, &["update cursor set position = 1, event_position = 1"]).await;
    let subscription = fixture.subscribe_to(&pruned, &CancellationToken::new());
    let refused = Operator::of(&fixture, &subscription, false).ask(ReconcileSubscriptionRequest::default()).await;
    assert_eq!(refused.expect_err("nothing to go back to").code(), Code::OutOfRange);
    subscription.stop().await;
}

async fn cursors_that_are_read_on_before_they_are_held_are_looked_at_anew(engine: Engine) {
    for (moves, is_held) in [(3, true), (u32::MAX, false)] {
        let (fixture, restored) = set_back(&engine, 10).await;
        let consumer = fixture.consumer.clone();
        let feed = Feed::service(restored, CancellationToken::new(), Condition::default());
        let left = Arc::new(AtomicU32::new(moves));
        // Whenever the source is asked, the cursors move meanwhile.
        let asked = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let (consumer, mut feed, left) = (consumer.clone(), feed.clone(), left.clone());
            async move {
                if left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                    run(&consumer, &["update cursor set store_id = store_id || '-'"]).await;
                }
                tower::Service::call(&mut feed, request).await
            }
        });
        let past = Past::new(Progress::default(), &EventServiceClient::new(asked));
        let held = Forks::find_and_hold(fixture.consumer.database(), &SOURCE.into(), &past, None).await;
        assert_eq!(held.is_ok(), is_held, "{:?}", held.map(|(_, lost)| lost));
    }
}

async fn of_two_operators_at_a_time_one_reconciles_and_the_other_undoes_nothing(engine: Engine) {
    for wholly in [false, true] {
        let (fixture, restored) = set_back(&engine, 10).await;
        let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let mut slow = Operator::behind(&fixture, &subscription, wholly, gate.clone());
        let mut slow = tokio::spawn(async move { slow.ask(ReconcileSubscriptionRequest::default()).await });
        let held = async || {
            let cursors = cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
            cursors.values().any(|cursor| *cursor.store_id != *restored.store_id())
        };
        let patience = Patience::begin();
        while !held().await {
            assert!(!slow.is_finished());
            patience.check("it holds the cursors").await;
        }
        let answer = Operator::of(&fixture, &subscription, wholly).reconcile().await;
        assert_eq!(lost(&answer), 50, "it has taken over");
        fixture.expect_all_applied().await;

        gate.add_permits(1);
        let refused = (&mut slow).await.expect("no panic").expect_err("too late");
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        fixture.expect_all_applied().await;
        subscription.stop().await;
    }
}

async fn a_reconcile_that_was_cut_off_is_finished_by_the_next(engine: Engine) {
    let (fixture, restored) = set_back(&engine, 10).await;
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    let closed = Arc::new(tokio::sync::Semaphore::new(0));
    let mut operator = Operator::behind(&fixture, &subscription, false, closed);
    let was = cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
    {
        let mut cut = std::pin::pin!(operator.ask(ReconcileSubscriptionRequest::default()));
        let patience = Patience::begin();
        while cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable") == was {
            assert!(futures_util::poll!(&mut cut).is_pending());
            patience.check("it holds the cursors").await;
        }
    }
    let answer = Operator::of(&fixture, &subscription, false).reconcile().await;
    assert_eq!(lost(&answer), 50, "{answer:?}");
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

async fn an_operator_sees_each_subscription_and_what_holds_it_up(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 3], "").await;
    produce(&fixture.producer, [7], POISON).await;
    produce(&fixture.producer, [7; 2], "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    wait_for_stop(&subscription).await;
    let mut operator = Operator::of(&fixture, &subscription, false);
    let patience = Patience::begin();
    let told = loop {
        let told = operator.subscriptions().await;
        if told[0].unhealthy && told[0].lag == 3 {
            break told;
        }
        patience.check("it is reported").await;
    };
    let [status] = &told[..] else { panic!("{told:?}") };
    let event = fixture
        .producer
        .read(Position { partition: partition_of(Uuid::from_u128(7)), position: 3 }, 1)
        .await
        .expect("readable");
    let stuck = &status.stuck[0];
    assert_eq!((status.source.as_str(), status.group.as_str(), status.partitions.len()), (SOURCE, CONSUMER, 16));
    assert_eq!(status.state(), meshwork::contract::meshwork::event::v1::SubscriptionState::Stopped);
    assert_eq!((stuck.event_id.as_str(), stuck.position, stuck.poison), (event[0].event_id.as_str(), 4, true));
    assert_eq!((stuck.event_type.as_str(), stuck.aggregate_type.as_str()), (event[0].r#type.as_str(), "thing"));
    assert_eq!((stuck.aggregate_id.as_str(), stuck.reason.as_str()), (POISON, "cannot be read"));
    assert!(status.problem.contains(&stuck.event_id) && status.oldest_unread.is_some(), "{status:?}");
    assert_eq!(status.source_store_id, fixture.producer.store_id());

    let request = ReconcileSubscriptionRequest { source: "nobody".into(), ..ReconcileSubscriptionRequest::default() };
    let unknown = operator.0.reconcile_subscription(request).await.expect_err("no such source");
    assert_eq!(unknown.code(), Code::NotFound);
    subscription.stop().await;
}
