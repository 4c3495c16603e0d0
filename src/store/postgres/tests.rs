//! The store against a real server, which MESHWORK_TEST_POSTGRES names.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::store::{
    Database, Migration, Sql, StoreError, Topic, Transaction, Value,
    fixture::{Engine, Open as _, Place},
    open,
};

/// Generous: only a promise that is broken takes this long.
const SOON: Duration = Duration::from_secs(20);

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: "create table thing (id bigint not null primary key, name text, body bytea)" },
    Migration { version: 2, sql: "insert into thing (id, name) values (1, 'first')" },
];

struct Fixture {
    place: Place,
    database: Database,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let place = Engine::postgres()?.place();
        let database = place.open().await;
        database.migrate("thing", MIGRATIONS).await.expect("the schema");
        Some(Self { place, database })
    }

    async fn names(&self) -> Vec<String> {
        let rows = self.database.read(Sql::new("select name from thing order by id")).await.expect("readable");
        rows.iter().map(|row| row.text(0).expect("a name").to_owned()).collect()
    }
}

fn insert(id: i64, name: &str) -> Sql {
    Sql::new("insert into thing (id, name) values ").rows([[id.into(), name.into()]])
}

async fn lock(tx: &mut dyn Transaction) -> Result<(), StoreError> {
    let select = Sql::new("select name from thing where id = 1").push(tx.for_update());
    timeout(SOON, tx.fetch(select)).await.expect("the lock is given back").map(drop)
}

#[tokio::test]
async fn instances_that_start_together_make_one_database_with_one_schema() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let starts = (0..8).map(|_| async {
        let database = open(&place.url).await?;
        database.migrate("thing", MIGRATIONS).await
    });
    for start in join_all(starts).await {
        start.expect("started");
    }
    let database = place.open().await;
    let rows = database.read(Sql::new("select name from thing")).await.expect("readable");
    assert_eq!(rows.len(), 1, "each migration ran once");
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let Some(Fixture { database, place: _place }) = Fixture::new().await else { return };
    let row = |id: i64, name: Option<&str>, body: Option<Vec<u8>>| {
        [id.into(), Value::Text(name.map(str::to_owned)), Value::Bytes(body)]
    };
    let rows = [row(i64::MAX, None, Some(vec![0, 255])), row(i64::MIN, Some("ü, \"{}\" \\ null"), None)];
    let mut tx = database.begin().await.expect("begun");
    let inserted = tx.execute(Sql::new("insert into thing (id, name, body) values ").rows(rows)).await;
    assert_eq!(inserted.expect("inserted"), 2);
    tx.commit().await.expect("committed");

    let select = Sql::new("select id, name, body, 7 from thing where id in ").list([i64::MIN, i64::MAX]);
    let rows = database.read(select.push(" order by id")).await.expect("readable");
    assert_eq!((rows[0].int(0).unwrap(), rows[1].int(0).unwrap()), (i64::MIN, i64::MAX));
    assert_eq!(rows[0].text(1).unwrap(), "ü, \"{}\" \\ null");
    assert_eq!((rows[0].bytes_or_null(2).unwrap(), rows[1].bytes(2).unwrap()), (None, [0, 255].as_slice()));
    assert_eq!(rows[0].int(3).unwrap(), 7, "a number of another width");
}

#[tokio::test]
async fn a_unique_violation_is_a_conflict_and_nothing_of_its_transaction_is_kept() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut tx = fixture.database.begin().await.expect("begun");
    tx.execute(insert(2, "second")).await.expect("new");
    let again = tx.execute(insert(1, "again")).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(StoreError::Refused(_))), "PostgreSQL itself would say COMMIT was fine");
    assert_eq!(fixture.names().await, ["first"]);

    let mut tx = fixture.database.begin().await.expect("begun");
    let wrong = tx.execute(Sql::new("insert into nothing values (1)")).await;
    assert!(matches!(wrong, Err(StoreError::Refused(_))), "{wrong:?}");
}

#[tokio::test]
async fn two_transactions_that_wait_for_each_other_end_in_a_conflict_of_one() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut tx = fixture.database.begin().await.expect("begun");
    tx.execute(insert(2, "second")).await.expect("new");
    tx.commit().await.expect("committed");

    let lock = |id: i64| Sql::new("select id from thing where id = ").arg(id).push(" for update");
    let (mut one, mut other) = (fixture.database.begin().await.unwrap(), fixture.database.begin().await.unwrap());
    one.fetch(lock(1)).await.expect("locked");
    other.fetch(lock(2)).await.expect("locked");
    let both = tokio::join!(
        async {
            let result = one.fetch(lock(2)).await;
            drop(one);
            result
        },
        async {
            let result = other.fetch(lock(1)).await;
            drop(other);
            result
        }
    );
    let conflicts = [both.0, both.1].iter().filter(|result| matches!(result, Err(StoreError::Conflict(_)))).count();
    assert_eq!(conflicts, 1);
}

#[tokio::test]
async fn a_process_that_was_stopped_in_a_transaction_gives_its_locks_back_and_cannot_commit() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut zombie = fixture.database.begin().await.expect("begun");
    zombie.execute(Sql::new("set local idle_in_transaction_session_timeout = 200")).await.expect("less to wait for");
    lock(&mut *zombie).await.expect("locked");
    zombie.execute(insert(2, "zombie")).await.expect("new");

    let mut rival = fixture.place.open().await.begin().await.expect("begun");
    lock(&mut *rival).await.expect("locked once the zombie's session is ended");
    rival.execute(insert(2, "rival")).await.expect("new");
    rival.commit().await.expect("committed");

    let committed = zombie.commit().await;
    assert!(matches!(committed, Err(StoreError::Unavailable(_))), "{committed:?}");
    assert_eq!(fixture.names().await, ["first", "rival"]);
}

#[tokio::test]
async fn connections_that_the_server_ended_cost_neither_reads_nor_transactions() {
    let Some(fixture) = Fixture::new().await else { return };
    let other = fixture.place.open().await;
    for _ in 0..3 {
        let busy: Vec<_> = join_all((0..3).map(|_| fixture.database.begin())).await;
        drop(busy);
        let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";
        // It may end the very connection that would answer next.
        let _ = other.begin().await.expect("begun").execute(Sql::new(end)).await;
        assert_eq!(fixture.names().await, ["first"]);
        fixture.database.begin().await.expect("begun").commit().await.expect("committed");
    }
}

#[tokio::test]
async fn other_processes_hear_a_word_and_whoever_tells_does_not() {
    let Some(Fixture { place, database: one }) = Fixture::new().await else { return };
    let other = place.open().await;
    let (mine, mut others) = (one.peers().unwrap().heard(Topic::Members), other.peers().unwrap().heard(Topic::Members));
    // Both have begun to listen once a word of each was heard by the other; before that, "I listen" was a word to oneself.
    let mut calls = tokio::time::interval(Duration::from_millis(20));
    let mut heard = mine.clone();
    let both = async {
        let (mut one_hears, mut other_hears) = (0, 0);
        while one_hears < 2 || other_hears < 2 {
            tokio::select! {
                _ = calls.tick() => {
                    one.peers().unwrap().tell(Topic::Members);
                    other.peers().unwrap().tell(Topic::Members);
                }
                _ = heard.changed() => one_hears += 1,
                _ = others.changed() => other_hears += 1,
            }
        }
    };
    timeout(SOON, both).await.expect("they hear each other; nothing polls for members");
}

#[tokio::test]
async fn a_password_is_never_shown() {
    for url in [
        "postgres://me:se@cret@127.0.0.1:1",
        "postgres://me:5/cret@127.0.0.1/db",
        "postgres://me:se/cret@127.0.0.1/db?sslmode=no-such-mode",
        "postgres://127.0.0.1/db?password=secret&sslmode=no-such-mode",
    ] {
        let error = open(url).await.err().expect("refused");
        let mut said = format!("{error} {error:?}");
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = cause {
            said = format!("{said} {error}");
            cause = error.source();
        }
        assert!(!said.contains("cret"), "{said}");
        assert!(said.contains("postgres://..."), "{said}");
    }
}
