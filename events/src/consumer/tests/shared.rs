//! What holds when several processes append to one log, or consume into one database. Each `open` of a [`Place`] is as if
//! by a separate process.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use parking_lot::Mutex;
use sqlx::postgres::PgListener;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::{
    consumer::consumer_group::{ConsumerGroups, Member},
    store::Database,
};

/// The positions that an outbox shows, by partition, in the order in which it shows them.
#[derive(Clone, Default)]
struct Observed(Arc<Mutex<BTreeMap<u32, Vec<u64>>>>);

impl Observed {
    fn of(outbox: &Outbox) -> Self {
        let observed = Self::default();
        let positions = observed.clone();
        outbox.observe(move |event| positions.with(|all| all.entry(event.partition).or_default().push(event.position)));
        observed
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<u32, Vec<u64>>) -> T) -> T {
        look(&mut self.0.lock())
    }

    /// Waits until this number of events was seen, and proves that each was seen once, in order.
    async fn expect(&self, count: usize) {
        let all = async {
            while self.with(|all| all.values().map(Vec::len).sum::<usize>()) < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, all).await.expect("all events are seen");
        self.with(|all| {
            for positions in all.values() {
                assert_eq!(*positions, (1..=positions.len() as u64).collect::<Vec<_>>());
            }
        });
    }
}

#[tokio::test]
async fn sixteen_writers_that_commit_out_of_order_lose_no_event_and_reorder_none() {
    const ROUNDS: u128 = 30;
    const EVENTS: u128 = 3;
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    let processes =
        join_all((0..16).map(|_| async { Outbox::open(fixture.places[0].open().await, SOURCE).await })).await;
    let processes: Vec<Outbox> = processes.into_iter().map(|outbox| outbox.expect("the log")).collect();
    let observed: Vec<Observed> = processes.iter().chain([&fixture.producer]).map(Observed::of).collect();
    let subscription = fixture.subscribe(&CancellationToken::new());

    let writers = (0_u128..).zip(&processes).map(|(writer, outbox)| {
        async move {
            for round in 0..ROUNDS {
                let event = |n| {
                    let key = Uuid::from_u128(writer * 31 + round * 7 + n * 5);
                    NewEvent::new(key, ("thing", key), 1, 0, &Service::default())
                };
                let mut tx = outbox.database().begin().await.expect("a transaction");
                let events = outbox.append(&mut *tx, (0..EVENTS).map(event).collect()).await.expect("appended");
                // Some commit late, those behind them in their partitions wait, and all others overtake them.
                let delay_ms = i64::from(rand::random_range(0..4_u8));
                let sleep = Sql::new("select pg_sleep(").arg(delay_ms).push("::float8 / 1000)");
                tx.execute(sleep).await.expect("slept");
                tx.commit().await.expect("committed");
                outbox.publish(events);
            }
        }
    });
    timeout(SOON, join_all(writers)).await.expect("written, without a deadlock");

    let count = (16 * ROUNDS * EVENTS) as usize;
    for observed in observed {
        observed.expect(count).await;
    }
    timeout(SOON, fixture.expect_all_applied()).await.expect("all applied");
    subscription.stop().await;
}

/// Two writers take their positions in one order and commit in the other, and a reader reads in between.
/// Returns what the reader has seen in the end, if it goes on behind the last position that it saw.
async fn read_between_two_commits(database: &Database, take_position: &str) -> Vec<i64> {
    let insert = |note: &str| Sql::new(format!("insert into entry (position, note) select {take_position}, '{note}'"));
    let read = |after: i64| async move {
        let select = Sql::new("select position from entry where position > ").arg(after).push(" order by position");
        let rows = database.read(select).await.expect("readable");
        rows.iter().map(|row| row.int(0).expect("a position")).collect::<Vec<_>>()
    };
    let (mut early, mut late) = (database.begin().await.expect("begun"), database.begin().await.expect("begun"));
    early.execute(insert("early")).await.expect("written");
    // With the counter's row locked, the second waits for the first: its commit cannot come before.
    let second = async {
        late.execute(insert("late")).await.expect("written");
        late.commit().await.expect("committed");
    };
    tokio::pin!(second);
    let overtook = timeout(Duration::from_millis(200), &mut second).await.is_ok();
    let mut seen = read(0).await;
    early.commit().await.expect("committed");
    if !overtook {
        second.await;
    }
    seen.extend(read(seen.last().copied().unwrap_or(0)).await);
    seen
}

#[tokio::test]
async fn a_counter_row_loses_no_event_where_a_plain_sequence_does() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let database = place.open().await;
    let statements = &[
        "create table entry (position bigint primary key, note text)",
        "create sequence plain",
        "create table counter (next bigint not null)",
        "insert into counter values (1)",
        "create function take() returns bigint language sql as 'update counter set next = next + 1 returning next - 1'",
    ];
    database.migrate("entry", &[Migration { version: 1, suits: 1, statements }]).await.expect("the schema");

    assert_eq!(read_between_two_commits(&database, "take()").await, [1, 2]);
    let mut tx = database.begin().await.expect("begun");
    tx.execute(Sql::new("delete from entry")).await.expect("deleted");
    tx.commit().await.expect("committed");
    assert_eq!(read_between_two_commits(&database, "nextval('plain')").await, [2], "1 was committed, and never seen");
}

#[tokio::test]
async fn a_business_transaction_notifies_nobody_so_that_commits_do_not_queue_up() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let outbox = Outbox::open(place.open().await, SOURCE).await.expect("a log");
    let mut listener = PgListener::connect(&place.url).await.expect("connected");
    listener.listen("meshwork").await.expect("listening");

    let key = Uuid::nil();
    let mut tx = outbox.database().begin().await.expect("begun");
    outbox
        .append(&mut *tx, vec![NewEvent::new(key, ("thing", key), 1, 0, &Service::default())])
        .await
        .expect("appended");
    tx.commit().await.expect("committed");
    let mut tx = outbox.database().begin().await.expect("begun");
    tx.execute(Sql::new("notify meshwork, 'a mark'")).await.expect("notified");
    tx.commit().await.expect("committed");
    // Notifications arrive in the order of their commits.
    let first = timeout(SOON, listener.recv()).await.expect("soon").expect("heard");
    assert_eq!(first.payload(), "a mark");
}

/// The partitions of members once they are shared out evenly, within `limit`.
async fn expect_shared_out(members: &[&Member], limit: Duration) {
    let even = async {
        loop {
            let shares: Vec<_> = members.iter().map(|member| member.partitions.borrow().clone()).collect();
            let mut all: Vec<u32> = shares.iter().flatten().copied().collect();
            all.sort_unstable();
            if all.into_iter().eq(0..PARTITIONS) && shares.iter().all(|share| share.len() >= 16 / members.len()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(limit, even).await.expect("shared out in time");
}

#[tokio::test]
async fn partitions_move_at_once_on_a_clean_leave_and_within_the_lease_on_a_crash() {
    const AT_ONCE: Duration = Duration::from_secs(2);
    const AFTER_A_CRASH: Duration = Duration::from_secs(10);
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let join = || async {
        // The schema comes with the log.
        ConsumerGroups::new(Outbox::open(place.open().await, SOURCE).await.expect("a log").database().clone())
            .join(SOURCE.into(), watch::Sender::new(BTreeSet::new()))
    };
    let first = join().await;
    expect_shared_out(&[&first], AT_ONCE).await;
    let second = join().await;
    expect_shared_out(&[&first, &second], AT_ONCE).await;
    first.leave().await;
    expect_shared_out(&[&second], AT_ONCE).await;

    let third = join().await;
    expect_shared_out(&[&second, &third], AT_ONCE).await;
    drop(third);
    expect_shared_out(&[&second], AFTER_A_CRASH).await;

    drop(second);
    let restarted = join().await;
    expect_shared_out(&[&restarted], AT_ONCE).await;
}

/// Consumes like [`Seen`], but stands still in its first transaction.
struct Stopped;

impl Decider for Stopped {
    type Key = (u32, u64);
    type Row = ();
    type Input = (u32, u64);
    type Reply = ();
    type Refusal = Forbidden;

    fn keys(&self, input: &(u32, u64), keys: &mut Vec<(u32, u64)>) {
        Seen.keys(input, keys);
    }

    fn decide(&self, _: &Rows<(u32, u64), ()>, input: &(u32, u64)) -> Result<Outcome<Self>, Forbidden> {
        Ok(Outcome { rows: vec![(*input, ())], events: Vec::new(), reply: () })
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[(u32, u64)]) -> Result<Vec<((u32, u64), ())>, StoreError> {
        Seen.load(tx, keys).await
    }

    async fn save(&self, _: &mut dyn Transaction, _: &[((u32, u64), ())]) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_instance_that_stands_still_holds_up_its_own_partitions_and_no_other() {
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    let stopped = Outbox::open(fixture.places[1].open().await, CONSUMER).await.expect("a log");
    let writer = Writer::start(stopped.clone(), Arc::new(Stopped));
    let client = client(&fixture.producer, &CancellationToken::new());
    let stopped = Subscription::start(client, stopped, writer, source());
    let working = fixture.subscribe(&CancellationToken::new());
    let shared_out = async {
        while [stopped.partitions(), working.partitions()].iter().any(|partitions| partitions.len() != 8) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, shared_out).await.expect("shared out");

    produce(&fixture.producer, 0..500, "").await;
    for partition in working.partitions() {
        let position = fixture.producer.committed_head(partition).await.expect("readable");
        let applied = working.progress().wait_for(Position { partition, position });
        timeout(SOON, applied).await.expect("not held up");
    }
    let cursors = cursor::load(fixture.consumer.database(), SOURCE).await.expect("readable");
    let moved = |partition: &u32| cursors.get(partition).is_some_and(|cursor| cursor.position > 0);
    assert!(!stopped.partitions().iter().any(moved), "it stood still");

    drop(stopped);
    timeout(SOON, fixture.expect_all_applied()).await.expect("taken over");
    working.stop().await;
}

#[tokio::test]
async fn consumers_in_several_processes_share_the_work_and_see_each_others_progress() {
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    let other = Outbox::open(fixture.places[1].open().await, CONSUMER).await.expect("a log");
    let other = Fixture {
        producer: Outbox::open(fixture.places[0].open().await, SOURCE).await.expect("the log"),
        writer: Writer::start(other.clone(), Arc::new(Seen)),
        consumer: other,
        places: [engine.place(), engine.place()],
    };
    produce(&fixture.producer, 0..500, "").await;
    let crashing = fixture.subscribe(&CancellationToken::new());
    let staying = other.subscribe(&CancellationToken::new());
    let both_read = async {
        while [&crashing, &staying].iter().any(|subscription| subscription.partitions().len() != 8) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, both_read).await.expect("shared out");
    produce(&other.producer, 0..500, "").await;
    for subscription in [&crashing, &staying] {
        for partition in 0..PARTITIONS {
            let position = fixture.producer.committed_head(partition).await.expect("readable");
            let seen = subscription.progress().wait_for(Position { partition, position });
            timeout(SOON, seen).await.expect("applied by either");
        }
    }

    drop(crashing);
    produce(&fixture.producer, 0..500, "").await;
    timeout(SOON, fixture.expect_all_applied()).await.expect("taken over");
    staying.stop().await;
}

#[tokio::test]
async fn a_reader_whose_own_database_went_back_under_it_reads_again_although_no_event_comes() {
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..100, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    past::run(
        &fixture.consumer,
        &[
            "update cursor set position = 1, event_id = '', event_position = 0 where position > 1",
            "delete from seen where position > 1",
        ],
    )
    .await;
    Outbox::open(fixture.places[1].open().await, CONSUMER).await.expect("another process").notify_others();
    fixture.expect_all_applied().await;
    subscription.stop().await;
}

#[tokio::test]
async fn a_log_in_which_others_have_written_what_cannot_be_read_is_not_well_until_it_can() {
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    let other = Outbox::open(fixture.places[0].open().await, SOURCE).await.expect("the log");
    let key = Uuid::nil();
    let mut tx = other.database().begin().await.expect("begun");
    other
        .append(&mut *tx, vec![NewEvent::new(key, ("thing", key), 1, 0, &Service::default())])
        .await
        .expect("appended");
    tx.execute(Sql::new("update outbox set aggregate_version = -1")).await.expect("damaged");
    tx.commit().await.expect("committed");
    other.notify_others();
    let (mut condition, patience) = (fixture.producer.condition(), Patience::begin());
    let problem = timeout(SOON, condition.until_problem()).await.expect("its health says so");
    assert!(problem.contains("the log cannot be read"), "{problem}");
    past::run(&other, &["update outbox set aggregate_version = 1"]).await;
    while condition.problem().is_some() || fixture.producer.heads().iter().sum::<u64>() == 0 {
        patience.check("it is read").await;
    }
}

#[tokio::test]
async fn what_others_have_written_since_its_database_went_back_a_process_does_not_publish() {
    let Some(engine) = Engine::postgres() else { return };
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..50, "").await;
    past::run(&fixture.producer, &past::BACKUP).await;
    produce(&fixture.producer, 0..50, "").await;
    let heads = fixture.producer.heads();
    past::run(&fixture.producer, &past::RESTORE).await;
    let other = Outbox::open(fixture.places[0].open().await, SOURCE).await.expect("the log");
    produce(&other, 0..500, "").await;
    let patience = Patience::begin();
    while fixture.producer.heads() == heads && fixture.producer.condition().problem().is_none() {
        patience.check("it looks at what others have written").await;
    }
    assert_eq!(fixture.producer.heads(), heads);
}
