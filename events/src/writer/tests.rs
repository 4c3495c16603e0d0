//! The writer against real databases, with a decider of accounts: deposits are kept, overdrafts refused, and an
//! account named "broken" is accepted by the rules but not by its table.

use std::{collections::BTreeMap, sync::Arc};

use meshwork::contract::meshwork::registry::v1::Service;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    outbox::{NewEvent, Outbox},
    store::{
        self, Migration, Sql, StoreError, Transaction,
        fixture::{Engine, Open as _, Place, on_both_stores},
    },
    writer::CursorMove,
};

mod shared;

struct Accounts;

#[derive(Clone, Debug)]
struct Book {
    account: &'static str,
    amount: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("overdrawn")]
struct Overdrawn;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    suits: 1,
    statements: &[
        "create table account (name text not null primary key check (name <> 'broken'), balance bigint not null)",
    ],
}];

impl Decider for Accounts {
    type Key = &'static str;
    type Row = i64;
    type Input = Book;
    type Reply = i64;
    type Refusal = Overdrawn;

    fn keys(&self, input: &Book, keys: &mut Vec<&'static str>) {
        keys.push(input.account);
    }

    fn decide(&self, rows: &Rows<&'static str, i64>, input: &Book) -> Result<Outcome<Self>, Overdrawn> {
        assert_ne!(input.account, "defect", "a defect of the rules");
        let balance = rows.get(&input.account).copied().unwrap_or(0) + input.amount;
        if balance < 0 {
            return Err(Overdrawn);
        }
        let times = if input.account == "large" { 1 << 19 } else { 1 };
        let payload = Service { name: input.account.repeat(times), instance_count: 1 };
        let event = NewEvent::new(Uuid::nil(), ("account", Uuid::nil()), balance.cast_unsigned(), 0, &payload);
        Ok(Outcome { rows: vec![(input.account, balance)], events: vec![event], reply: balance })
    }

    async fn load(
        &self,
        tx: &mut dyn Transaction,
        keys: &[&'static str],
    ) -> Result<Vec<(&'static str, i64)>, StoreError> {
        let select = Sql::new("select name, balance from account where name ").in_list(keys.iter().copied());
        let rows = tx.fetch(select.push(" order by name").push(tx.for_update())).await?;
        rows.iter()
            .map(|row| {
                let name = row.text(0)?;
                Ok((*keys.iter().find(|key| **key == name).expect("asked for"), row.int(1)?))
            })
            .collect()
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(&'static str, i64)]) -> Result<(), StoreError> {
        let upsert = Sql::new("insert into account (name, balance) ")
            .values(changed.iter().map(|(name, balance)| [(*name).into(), (*balance).into()]))
            .push(" on conflict (name) do update set balance = excluded.balance");
        tx.execute(upsert).await.map(drop)
    }

    fn committed(&self, changed: &[(&'static str, i64)]) {
        assert!(changed.iter().all(|(account, _)| *account != "after"), "a defect of what runs after the commit");
    }
}

struct Fixture {
    outbox: Outbox,
    writer: Writer<Accounts>,
    _place: Place,
}

impl Fixture {
    async fn new(engine: &Engine) -> Self {
        let place = engine.place();
        let (outbox, writer) = start(&place).await;
        Self { outbox, writer, _place: place }
    }

    async fn balances(&self) -> BTreeMap<String, i64> {
        let rows = self.outbox.database().read(Sql::new("select name, balance from account")).await.expect("readable");
        rows.iter().map(|row| (row.text(0).expect("a name").to_owned(), row.int(1).expect("a balance"))).collect()
    }

    /// The accounts named by the events of the only partition in use, read from the database.
    async fn log(&self) -> Vec<(i64, String)> {
        let select = Sql::new("select position, payload from outbox order by partition, position");
        let rows = self.outbox.database().read(select).await.expect("readable");
        let name = |bytes: &[u8]| <Service as prost::Message>::decode(bytes).expect("a payload").name;
        rows.iter().map(|row| (row.int(0).expect("a position"), name(row.bytes(1).expect("a payload")))).collect()
    }

    async fn consume(&self, inputs: Vec<Book>, after: u64, through: u64) -> Result<usize, WriteError<Overdrawn>> {
        let claim = CursorMove {
            cursor: "bank".into(),
            store_id: "s".into(),
            partition: 0,
            after,
            through,
            through_event_id: String::new(),
        };
        let answer = self.writer.enqueue_consumed(inputs.into_iter().map(Into::into).collect(), claim).await?;
        answer.await.expect("the writer answers").map(|replies| replies.len())
    }
}

/// A writer on the database of `place`.
async fn start(place: &Place) -> (Outbox, Writer<Accounts>) {
    let database = place.open().await;
    database.migrate("account", MIGRATIONS).await.expect("the schema");
    let outbox = Outbox::open(database, "account").await.expect("a log");
    (outbox.clone(), Writer::start(outbox, Arc::new(Accounts)))
}

fn book(account: &'static str, amount: i64) -> Book {
    Book { account, amount }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

on_both_stores!(
    consumed_events_have_their_effects_once_although_they_come_twice,
    a_refused_event_takes_its_whole_batch_and_its_cursor_back,
    a_panic_of_the_rules_ends_its_own_input_and_nothing_else,
    a_panic_after_a_commit_does_not_make_it_happen_twice,
    an_event_that_no_subscriber_could_be_sent_is_refused_and_its_input_alone,
    what_was_queued_is_committed_before_the_writer_closes,
);

async fn consumed_events_have_their_effects_once_although_they_come_twice(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    assert!(matches!(fixture.consume(vec![book("a", 5)], 0, 1).await, Ok(1)));
    assert!(matches!(fixture.consume(vec![book("a", 5)], 0, 1).await, Err(WriteError::Fenced)), "repeated");
    assert!(matches!(fixture.consume(vec![book("a", 5)], 2, 3).await, Err(WriteError::Fenced)), "a gap");
    assert!(matches!(fixture.consume(vec![book("a", 2)], 1, 2).await, Ok(1)));
    assert_eq!(fixture.balances().await, BTreeMap::from([("a".to_owned(), 7)]));
}

async fn a_refused_event_takes_its_whole_batch_and_its_cursor_back(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let refused = fixture.consume(vec![book("a", 5), book("a", -9)], 0, 2).await;
    assert!(matches!(refused, Err(WriteError::Refused(Overdrawn))));
    assert_eq!(fixture.balances().await, BTreeMap::new());
    assert_eq!(fixture.log().await, []);
    assert!(matches!(fixture.consume(vec![book("a", 5)], 0, 1).await, Ok(1)), "the cursor did not move");
}

async fn a_panic_of_the_rules_ends_its_own_input_and_nothing_else(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let inputs = [book("a", 1), book("defect", 1), book("a", 1)];
    let answers = futures_util::future::join_all(inputs.map(|input| fixture.writer.submit(input))).await;
    assert!(matches!(&answers[1], Err(WriteError::Store(error)) if matches!(**error, StoreError::Panicked)));
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(fixture.balances().await, BTreeMap::from([("a".to_owned(), 2)]));
}

async fn a_panic_after_a_commit_does_not_make_it_happen_twice(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    fixture.outbox.observe(|_| panic!("a defect of an observer"));
    let inputs = [book("a", 1), book("after", 1), book("a", 1)];
    let answers = futures_util::future::join_all(inputs.map(|input| fixture.writer.submit(input))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fixture.balances().await, BTreeMap::from([("a".to_owned(), 2), ("after".to_owned(), 1)]));
    assert_eq!(fixture.log().await.len(), 3);
}

async fn an_event_that_no_subscriber_could_be_sent_is_refused_and_its_input_alone(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let inputs = [book("a", 1), book("large", 1), book("a", 1)];
    let answers = futures_util::future::join_all(inputs.map(|input| fixture.writer.submit(input))).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let Err(WriteError::Store(error)) = &answers[1] else { panic!("too large") };
    assert!(matches!(**error, StoreError::EventTooLarge { .. }), "{error}");
    assert_eq!(fixture.balances().await, BTreeMap::from([("a".to_owned(), 2)]));
}

async fn what_was_queued_is_committed_before_the_writer_closes(engine: Engine) {
    let fixture = Fixture::new(&engine).await;
    let queued = (0..100).map(|_| fixture.writer.submit(book("a", 1)));
    let queued = futures_util::future::join_all(queued);
    let (answers, ()) = tokio::join!(queued, async {
        tokio::task::yield_now().await;
        fixture.writer.close().await;
    });
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(fixture.balances().await.get("a"), Some(&(accepted as i64)));
    assert!(matches!(fixture.writer.submit(book("a", 1)).await, Err(WriteError::Closed)));
}

/// Any mix of good and bad inputs, all in flight at once: good ones are kept once, bad ones are refused alone.
async fn keeps_good_inputs_once_and_refuses_bad_ones_alone(
    engine: Engine,
    inputs: Vec<(&'static str, i64)>,
) -> Result<(), TestCaseError> {
    let fixture = Fixture::new(&engine).await;
    let answers = inputs.iter().map(|(account, amount)| fixture.writer.submit(book(account, *amount)));
    let answers = futures_util::future::join_all(answers).await;

    let mut model = BTreeMap::<String, i64>::new();
    let mut log = Vec::new();
    for ((account, amount), answer) in inputs.iter().zip(answers) {
        let balance = model.get(*account).copied().unwrap_or(0) + amount;
        match answer {
            Ok(applied) => {
                prop_assert_eq!(applied.reply, balance);
                model.insert((*account).to_owned(), balance);
                log.push((log.len() as i64 + 1, (*account).to_owned()));
                prop_assert_eq!(applied.point.map(|point| point.at.position), Some(log.len() as u64));
            }
            Err(WriteError::Refused(Overdrawn)) => prop_assert!(balance < 0),
            Err(WriteError::Store(_)) => prop_assert_eq!(*account, "broken"),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
    prop_assert_eq!(fixture.balances().await, model);
    prop_assert_eq!(fixture.log().await, log);
    Ok(())
}

fn inputs() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    prop::collection::vec((prop::sample::select(vec!["a", "b", "broken"]), -3_i64..6), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn good_inputs_are_kept_once_and_bad_ones_refused_alone(inputs in inputs()) {
        runtime().block_on(keeps_good_inputs_once_and_refuses_bad_ones_alone(Engine::Sqlite, inputs))?;
    }
}

proptest! {
    // Each case needs another database, which takes PostgreSQL a while.
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn good_inputs_are_kept_once_and_bad_ones_refused_alone_on_postgres(inputs in inputs()) {
        if let Some(engine) = Engine::postgres() {
            runtime().block_on(keeps_good_inputs_once_and_refuses_bad_ones_alone(engine, inputs))?;
        }
    }
}
