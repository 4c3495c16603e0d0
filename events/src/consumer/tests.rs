//! Producer and consumer over the real rpc, in one process: a log in one database, its reader in another.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meshwork::{
    contract::meshwork::{
        event::v1::{
            Ack, Credit, Event, GroupLifetime, Open, Start, Stop, SubscribeRequest, SubscribeResponse,
            event_service_client::EventServiceClient, subscribe_request::Action, subscribe_response,
        },
        registry::v1::Service,
    },
    health::{Condition, Conditioner},
    rpc::Transport,
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{progress::SubscriptionState, *};
use crate::{
    outbox::{Feed, NewEvent, Outbox, PARTITIONS, Position, PositionToken, partition_of},
    store::{
        Migration, Sql, StoreError, Transaction,
        fixture::{Engine, Open as _, Place, on_both_stores},
    },
    writer::{Decider, Outcome, Rows, Writer, cursor},
};

mod groups;
mod past;
mod reconcile;
mod shared;
mod stuck;

const SOURCE: &str = "producer";
const CONSUMER: &str = "consumer";
/// Given as a name, it makes an event that the consumer cannot read.
const POISON: &str = "poison";
/// Given as a name, it makes an event whose effect the consumer's table refuses.
const UNSTORABLE: &str = "unstorable";
/// Given as a name, it makes an event that the consumer's rules refuse until [`ALLOWED`] was seen.
const FORBIDDEN: &str = "forbidden";
/// Given as a name, it makes an event on which the consumer's rules panic.
const DEFECT: &str = "defect";
/// No position is this far.
const BEYOND: u64 = 1_000_000;
/// A row that no event makes.
const ALLOWED: (u32, u64) = (99, 99);

/// Notes every event that it consumes; a table without `on conflict`, so that an effect that came twice would fail.
struct Seen;

#[derive(Debug, thiserror::Error)]
#[error("it is forbidden")]
struct Forbidden;

impl Decider for Seen {
    type Key = (u32, u64);
    type Row = ();
    type Input = (u32, u64);
    type Reply = ();
    type Refusal = Forbidden;

    fn keys(&self, _: &(u32, u64), keys: &mut Vec<(u32, u64)>) {
        keys.push(ALLOWED);
    }

    fn decide(&self, rows: &Rows<(u32, u64), ()>, input: &(u32, u64)) -> Result<Outcome<Self>, Forbidden> {
        let (partition, position) = *input;
        let stored = match position / BEYOND {
            2 if rows.get(&ALLOWED).is_none() => return Err(Forbidden),
            2 => position % BEYOND,
            3 => panic!("a defect of the rules"),
            _ => position,
        };
        Ok(Outcome { rows: vec![((partition, stored), ())], events: Vec::new(), reply: () })
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[(u32, u64)]) -> Result<Vec<((u32, u64), ())>, StoreError> {
        assert_eq!(keys, [ALLOWED]);
        let rows = tx.fetch(Sql::new("select 1 from seen where partition = 99")).await?;
        Ok(rows.iter().map(|_| (ALLOWED, ())).collect())
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[((u32, u64), ())]) -> Result<(), StoreError> {
        let rows = changed.iter().map(|((p, n), ())| [i64::from(*p).into(), (*n as i64).into()]);
        tx.execute(Sql::new("insert into seen (partition, position) ").values(rows)).await.map(drop)
    }
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    suits: 1,
    statements: &["
create table seen (partition bigint not null, position bigint not null check (position < 1000000),
              primary key (partition, position))
"],
}];

fn decode(event: &Event) -> Result<(u32, u64), MalformedEvent> {
    if event.aggregate_id == POISON {
        return Err(MalformedEvent::new("cannot be read"));
    }
    let beyond = match event.aggregate_id.as_str() {
        UNSTORABLE => 1,
        FORBIDDEN => 2,
        DEFECT => 3,
        _ => 0,
    };
    Ok((event.partition, event.position + beyond * BEYOND))
}

async fn produce(outbox: &Outbox, keys: impl IntoIterator<Item = u128>, aggregate_id: &str) {
    let event = |key| {
        let key = Uuid::from_u128(key);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970").as_millis();
        let mut event = NewEvent::new(key, ("thing", key), 1, now_ms as i64, &Service::default());
        aggregate_id.clone_into(&mut event.aggregate_id);
        event
    };
    let mut tx = outbox.database().begin().await.expect("a transaction");
    let events = outbox.append(&mut *tx, keys.into_iter().map(event).collect()).await.expect("appended");
    tx.commit().await.expect("committed");
    outbox.publish(events);
}

fn client(producer: &Outbox, draining: &CancellationToken) -> EventServiceClient<impl Transport + use<>> {
    EventServiceClient::new(Feed::service(producer.clone(), draining.clone(), Condition::default()))
}

fn source<D: Decider<Input = (u32, u64)>>() -> Source<D> {
    let (group, lifetime) = (CONSUMER.to_owned(), GroupLifetime::Durable);
    Source { name: SOURCE, group, lifetime, types: Vec::new(), decode }
}

/// Generous: only a promise that is broken takes this long.
const SOON: Duration = Duration::from_secs(60);

/// For loops that wait: an end, by the clock on the wall, also where the runtime's stands still.
struct Patience(std::time::Instant);

impl Patience {
    fn begin() -> Self {
        Self(std::time::Instant::now())
    }

    /// Lets others work.
    async fn check(&self, what: &str) {
        assert!(self.0.elapsed() < SOON, "{what}");
        tokio::task::yield_now().await;
    }
}

struct Fixture {
    producer: Outbox,
    consumer: Outbox,
    writer: Writer<Seen>,
    places: [Place; 2],
}

impl Fixture {
    async fn new(engine: &Engine) -> Self {
        let places = [engine.place(), engine.place()];
        let producer = Outbox::open(places[0].open().await, SOURCE).await.expect("a log");
        let consumer = places[1].open().await;
        consumer.migrate(CONSUMER, MIGRATIONS).await.expect("the schema");
        let consumer = Outbox::open(consumer, CONSUMER).await.expect("a log");
        let writer = Writer::start(consumer.clone(), Arc::new(Seen));
        Self { producer, consumer, writer, places }
    }

    fn subscribe(&self, draining: &CancellationToken) -> Subscription {
        self.subscribe_to(&self.producer, draining)
    }

    fn subscribe_to(&self, producer: &Outbox, draining: &CancellationToken) -> Subscription {
        Subscription::start(client(producer, draining), self.consumer.clone(), self.writer.clone(), source())
    }

    /// Changes the consumer's database by hand.
    async fn operate(&self, sql: &'static str) {
        let mut tx = self.consumer.database().begin().await.expect("begun");
        tx.execute(Sql::new(sql)).await.expect(sql);
        tx.commit().await.expect("committed");
    }

    /// How far the consumer has come in a partition.
    async fn cursor(&self, partition: u32) -> u64 {
        let cursors = cursor::load(self.consumer.database(), SOURCE).await.expect("readable");
        cursors.get(&partition).map_or(0, |cursor| cursor.position)
    }

    /// Waits until the subscriptions have together applied the whole log, and proves that nothing came twice.
    async fn expect_all_applied(&self) {
        let (mut count, patience) = (0, Patience::begin());
        for partition in 0..PARTITIONS {
            let position = self.producer.committed_head(partition).await.expect("readable");
            count += position;
            while self.cursor(partition).await < position {
                patience.check("all is applied").await;
            }
        }
        let select = Sql::new("select count(*) from seen where partition <> 99");
        let seen = self.consumer.database().read(select).await.expect("readable")[0].count(0).expect("a count");
        assert_eq!(seen, count);
    }
}

async fn wait_for_stop(subscription: &Subscription) -> String {
    let patience = Patience::begin();
    loop {
        if let SubscriptionState::Stopped(error) = subscription.progress().snapshot().state {
            return error;
        }
        patience.check("it stops").await;
    }
}

on_both_stores!(
    every_event_has_its_effect_once_while_readers_join_leave_and_the_source_drains,
    a_source_that_was_replaced_or_has_lost_events_stops_the_subscription,
    a_log_that_is_opened_again_reads_as_before,
    a_subscriber_that_breaks_the_protocol_is_told_what_is_wrong,
    what_was_committed_without_an_answer_is_published_as_soon_as_it_is_looked_for,
    nothing_flows_without_credit_and_no_more_than_was_given,
    floods_of_starts_stops_acks_and_credit_change_nothing,
);

async fn every_event_has_its_effect_once_while_readers_join_leave_and_the_source_drains(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..3000, "").await;
    let draining = CancellationToken::new();
    let first = fixture.subscribe(&draining);
    let second = fixture.subscribe(&CancellationToken::new());
    produce(&fixture.producer, 0..500, "").await;
    draining.cancel();
    drop(second);
    produce(&fixture.producer, 0..500, "").await;
    let third = fixture.subscribe(&CancellationToken::new());
    first.stop().await;
    fixture.expect_all_applied().await;
    third.stop().await;
}

async fn a_source_that_was_replaced_or_has_lost_events_stops_the_subscription(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..100, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;

    let replacement = engine.place();
    let replaced = Outbox::open(replacement.open().await, SOURCE).await.expect("a log");
    let subscription = fixture.subscribe_to(&replaced, &CancellationToken::new());
    assert!(wait_for_stop(&subscription).await.contains("another store"));
    subscription.stop().await;

    let mut tx = fixture.producer.database().begin().await.expect("a transaction");
    tx.execute(Sql::new("update outbox_head set next = 1")).await.expect("lost");
    tx.execute(Sql::new("delete from outbox")).await.expect("lost");
    tx.commit().await.expect("committed");
    let restored = Outbox::open(fixture.producer.database().clone(), SOURCE).await.expect("a log");
    let subscription = fixture.subscribe_to(&restored, &CancellationToken::new());
    assert!(wait_for_stop(&subscription).await.contains("events were lost"));
}

async fn a_log_that_is_opened_again_reads_as_before(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7, 7, 7], "x").await;
    let reopened = Outbox::open(fixture.producer.database().clone(), SOURCE).await.expect("the same database");
    assert_eq!((reopened.store_id(), reopened.heads()), (fixture.producer.store_id(), fixture.producer.heads()));
    let after = Position { partition: partition_of(Uuid::from_u128(7)), position: 1 };
    let from_database = reopened.read(after, 10).await.expect("readable");
    assert_eq!(from_database.iter().map(|event| event.position).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(fixture.producer.read(after, 10).await.expect("readable"), from_database, "as from memory");
}

/// Sends `actions`, closes the request side, and gathers what comes back.
async fn session(outbox: &Outbox, actions: Vec<Action>) -> Result<Vec<SubscribeResponse>, Status> {
    let mut client =
        EventServiceClient::new(Feed::service(outbox.clone(), CancellationToken::new(), Condition::default()));
    let requests = tokio_stream::iter(actions.into_iter().map(|action| SubscribeRequest { action: Some(action) }));
    client.subscribe(requests).await?.into_inner().collect::<Result<Vec<_>, _>>().await
}

fn open() -> Action {
    Action::Open(Open { group: "test".into(), ..Open::default() })
}

async fn what_was_committed_without_an_answer_is_published_as_soon_as_it_is_looked_for(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let key = Uuid::nil();
    let mut tx = fixture.producer.database().begin().await.expect("begun");
    let event = NewEvent::new(key, ("thing", key), 1, 0, &Service::default());
    fixture.producer.append(&mut *tx, vec![event]).await.expect("appended");
    tx.commit().await.expect("committed");
    assert_eq!(fixture.producer.heads().iter().sum::<u64>(), 0);
    fixture.producer.look_behind();
    let patience = Patience::begin();
    while fixture.producer.heads().iter().sum::<u64>() == 0 {
        patience.check("it is published").await;
    }
}

async fn a_subscriber_that_breaks_the_protocol_is_told_what_is_wrong(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let start = |partition, store_id: &str, after| {
        Action::Start(Start { partition, store_id: store_id.into(), after, ..Start::default() })
    };
    let types = |types| Action::Open(Open { group: "test".into(), types, ..Open::default() });
    let cases = [
        (vec![start(0, "", 0)], Code::InvalidArgument),
        (vec![Action::Ack(Ack::default())], Code::InvalidArgument),
        (vec![open(), open()], Code::InvalidArgument),
        (vec![Action::Open(Open::default())], Code::InvalidArgument),
        (vec![open(), start(16, "", 0)], Code::InvalidArgument),
        (vec![open(), start(u32::MAX, "", 0)], Code::InvalidArgument),
        (vec![types(vec![String::new(); 65])], Code::InvalidArgument),
        (vec![types(vec!["x".repeat(257)])], Code::InvalidArgument),
        (vec![open(), start(0, "", 1)], Code::DataLoss),
        (vec![open(), start(0, fixture.producer.store_id(), u64::MAX)], Code::DataLoss),
        (vec![open(), start(0, "other", 0)], Code::DataLoss),
        (vec![open(), start(0, fixture.producer.store_id(), 1)], Code::DataLoss),
    ];
    for (actions, code) in cases {
        let status = session(&fixture.producer, actions.clone()).await.expect_err("refused");
        assert_eq!(status.code(), code, "{actions:?}: {status}");
    }
}

async fn nothing_flows_without_credit_and_no_more_than_was_given(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 10], "x").await;
    let partition = partition_of(Uuid::from_u128(7));
    for (credit, sent) in [(0, 0), (4, 4), (100, 10)] {
        let start = Action::Start(Start { partition, ..Start::default() });
        let credit = Action::Credit(Credit { events: credit });
        let responses = session(&fixture.producer, vec![open(), start, credit]).await.expect("accepted");
        let events = responses.iter().map(|response| match &response.event {
            Some(subscribe_response::Event::Batch(batch)) => batch.events.len(),
            _ => 0,
        });
        assert_eq!(events.sum::<usize>(), sent);
    }
}

async fn floods_of_starts_stops_acks_and_credit_change_nothing(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, [7; 10], "x").await;
    let partition = partition_of(Uuid::from_u128(7));
    let nonsense = [
        Action::Stop(Stop { partition }),
        Action::Stop(Stop { partition: u32::MAX }),
        Action::Ack(Ack { partition: u32::MAX, through: u64::MAX }),
        Action::Start(Start { partition, ..Start::default() }),
    ];
    let flood = nonsense.into_iter().cycle().take(4000);
    let credit = std::iter::repeat_n(Action::Credit(Credit { events: u32::MAX }), 1000);
    let actions = std::iter::once(open()).chain(flood).chain(credit).collect();
    let responses = session(&fixture.producer, actions).await.expect("accepted");
    let events = responses.iter().map(|response| match &response.event {
        Some(subscribe_response::Event::Batch(batch)) => batch.events.len(),
        _ => 0,
    });
    assert_eq!(events.sum::<usize>(), 10, "from the last start on, once");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_opened_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("log.db").display());
    let outbox = Outbox::open(crate::store::open(&url).await.expect("a database"), SOURCE).await.expect("a log");
    let mut client = EventServiceClient::new(Feed::service(outbox, CancellationToken::new(), Condition::default()));
    let mut responses =
        client.subscribe(tokio_stream::pending::<SubscribeRequest>()).await.expect("a stream").into_inner();
    let begin = tokio::time::Instant::now();
    assert_eq!(responses.message().await.expect_err("ended").code(), Code::DeadlineExceeded);
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_subscription_that_has_stopped_by_itself_is_reported_until_it_is_stopped() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let engine = Engine::Sqlite;
    let fixture = Fixture::new(&engine).await;
    produce(&fixture.producer, 0..10, "").await;
    let subscription = fixture.subscribe(&CancellationToken::new());
    fixture.expect_all_applied().await;
    subscription.stop().await;
    let replacement = engine.place();
    let replaced = Outbox::open(replacement.open().await, SOURCE).await.expect("a log");
    let subscription = fixture.subscribe_to(&replaced, &CancellationToken::new());
    assert!(wait_for_stop(&subscription).await.contains("another store"));

    // By hand: the writer's thread keeps the paused clock from going on by itself.
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let told = recorder.handle().render();
    for name in ["meshwork_subscription_lag_events", "meshwork_subscription_oldest_unread_seconds"] {
        assert!(told.contains(&format!(r#"{name}{{source="producer",group="consumer"}} "#)), "{name} in {told}");
    }
    assert!(
        told.contains(r#"meshwork_subscription_state{source="producer",group="consumer",state="stopped"} 1"#),
        "{told}"
    );
    subscription.stop().await;
}
