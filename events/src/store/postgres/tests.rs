//! The store against a real server, which MESHWORK_TEST_POSTGRES names.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::store::{
    Database, Migration, PostgresUrl, Sql, StoreError, Topic, Transaction, Value,
    fixture::{Engine, Open as _, PgBouncer, Place},
    open,
};

/// Generous: only a promise that is broken takes this long.
const SOON: Duration = Duration::from_secs(20);
/// From a writable server's return to the first commit.
const BACK_WITHIN: Duration = Duration::from_secs(2);

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        suits: 1,
        statements: &["create table thing (id bigint not null primary key, name text, body {bytes})"],
    },
    Migration { version: 2, suits: 1, statements: &["insert into thing (id, name) values (1, 'first')"] },
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
        names(&self.database).await
    }
}

async fn names(database: &Database) -> Vec<String> {
    let rows = database.read(Sql::new("select name from thing order by id")).await.expect("readable");
    rows.iter().map(|row| row.text(0).expect("a name").to_owned()).collect()
}

fn insert(id: i64, name: &str) -> Sql {
    Sql::new("insert into thing (id, name) ").values([[id.into(), name.into()]])
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
    let inserted = tx.execute(Sql::new("insert into thing (id, name, body) ").values(rows)).await;
    assert_eq!(inserted.expect("inserted"), 2);
    tx.commit().await.expect("committed");

    let select = Sql::new("select id, name, body, 7 from thing where id ").in_list([i64::MIN, i64::MAX]);
    let rows = database.read(select.push(" order by id")).await.expect("readable");
    assert_eq!((rows[0].int(0).expect("its type"), rows[1].int(0).expect("its type")), (i64::MIN, i64::MAX));
    assert_eq!(rows[0].text(1).expect("its type"), "ü, \"{}\" \\ null");
    assert_eq!(
        (rows[0].bytes_or_null(2).expect("its type"), rows[1].bytes(2).expect("its type")),
        (None, [0, 255].as_slice())
    );
    assert_eq!(rows[0].int(3).expect("its type"), 7, "a number of another width");
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
    let (mut one, mut other) =
        (fixture.database.begin().await.expect("begun"), fixture.database.begin().await.expect("begun"));
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
async fn other_processes_are_notified_and_the_notifier_is_not() {
    let Some(Fixture { place, database: one }) = Fixture::new().await else { return };
    let other = place.open().await;
    let (mine, mut others) = (
        one.notifier().expect("PostgreSQL has one").subscribe(Topic::Members),
        other.notifier().expect("PostgreSQL has one").subscribe(Topic::Members),
    );
    // Both have begun to listen once each has received a notification of the other; a first wake-up may be its own, from when
    // it began to listen.
    let mut calls = tokio::time::interval(Duration::from_millis(20));
    let mut received = mine.clone();
    let both = async {
        let (mut one_hears, mut other_hears) = (0, 0);
        while one_hears < 2 || other_hears < 2 {
            tokio::select! {
                _ = calls.tick() => {
                    one.notifier().expect("PostgreSQL has one").notify(Topic::Members);
                    other.notifier().expect("PostgreSQL has one").notify(Topic::Members);
                }
                _ = received.changed() => one_hears += 1,
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

#[tokio::test]
async fn a_service_writes_again_soon_after_a_writable_server_is_there_again() {
    let Some(Fixture { place, database }) = Fixture::new().await else { return };
    // Sessions of before that keep running, and of the old server: as many as there may be.
    let busy: Vec<_> = join_all((0..4).map(|_| database.begin())).await;
    drop(busy);
    database.check().await.expect("it is writable");

    // As if this server were demoted, and its sessions ended: all that come from now on are read-only for good.
    let name = place.url.rsplit('/').next().expect("a database").split('?').next().expect("its name");
    let mut operator = place.open().await.begin().await.expect("begun");
    let demote = format!("alter database {name} set default_transaction_read_only = on");
    operator.execute(Sql::new(demote)).await.expect("altered");
    operator.commit().await.expect("committed");
    let options: PgConnectOptions = place.url.parse().expect("a URL");
    let options = options.options([("default_transaction_read_only", "off")]);
    let admin = PgConnection::connect_with(&options);
    let mut admin = admin.await.expect("connected");
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
               where datname = current_database() and pid <> pg_backend_pid()";
    admin.execute(end).await.expect("ended");

    let refused = timeout(SOON, database.check()).await.expect("it says so").expect_err("read-only");
    let cause = std::error::Error::source(&refused).expect("why").to_string();
    assert!(matches!(refused, StoreError::Unavailable(_)) && cause.contains("read-only"), "{cause}");

    let promote = format!("alter database {name} reset default_transaction_read_only");
    admin.execute(AssertSqlSafe(promote)).await.expect("altered");
    let written = async {
        loop {
            let Ok(mut tx) = database.begin().await else { continue };
            if tx.execute(insert(2, "written")).await.is_ok() {
                return tx.commit().await;
            }
        }
    };
    timeout(BACK_WITHIN, written).await.expect("in time").expect("committed");
    assert_eq!(names(&database).await, ["first", "written"]);
}

#[tokio::test]
async fn sessions_that_became_read_only_while_they_were_open_are_ended() {
    let Some(fixture) = Fixture::new().await else { return };
    // What a demotion does to sessions that stay: all of the pool's, while new ones are writable.
    let open = join_all((0..4).map(|_| fixture.database.begin())).await;
    for tx in open {
        let mut tx = tx.expect("begun");
        tx.execute(Sql::new("set session characteristics as transaction read only")).await.expect("set");
        tx.commit().await.expect("committed");
    }
    let mut tries = 0;
    let written = async {
        loop {
            tries += 1;
            let mut tx = fixture.database.begin().await.expect("begun");
            match tx.execute(insert(2, "written")).await {
                Ok(_) => return tx.commit().await,
                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
            }
        }
    };
    timeout(SOON, written).await.expect("soon").expect("committed");
    assert!(tries <= 2, "the first that is found is the last: {tries}");
    assert_eq!(fixture.names().await, ["first", "written"]);
}

/// A session of the server itself, as an operator has it.
async fn operator() -> Option<(PostgresUrl, PgConnection)> {
    let Engine::Postgres(url) = Engine::postgres()? else { return None };
    let session = PgConnection::connect(&url).await.expect("connected");
    Some((url.parse().expect("a URL"), session))
}

#[tokio::test]
async fn a_database_that_not_every_text_fits_into_is_refused_with_the_way_to_one() {
    let (Some(engine), Some((_, mut operator))) = (Engine::postgres(), operator().await) else { return };
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let place = engine.place();
        let url: PostgresUrl = place.url.parse().expect("a URL");
        let name = url.database().expect("its name");
        let create =
            format!("create database {name} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0");
        operator.execute(AssertSqlSafe(create)).await.expect("made");

        let refused = open(&place.url).await.err().expect("not every text fits into it");

        assert!(matches!(&refused, StoreError::Unsuitable { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains(encoding) && said.contains(name) && said.contains("encoding 'UTF8'"), "{said}");
    }
}

#[tokio::test]
async fn a_user_that_may_only_use_the_tables_is_enough_once_they_are_there() {
    let Some(Fixture { place, .. }) = Fixture::new().await else { return };
    let url: PostgresUrl = place.url.parse().expect("a URL");
    let user = format!("user_of_{}", url.database().expect("its name"));
    let mut owner = PgConnection::connect(&place.url).await.expect("connected");
    let grants = format!(
        "create user {user}; revoke create on schema public from public; \
         grant select, insert, update, delete on all tables in schema public to {user}"
    );
    owner.execute(AssertSqlSafe(grants)).await.expect("granted");
    let as_user = place.url.replace("postgres@", &format!("{user}@"));
    assert_ne!(as_user, place.url);

    let database = open(&as_user).await.expect("it may connect");
    database.migrate("thing", MIGRATIONS).await.expect("nothing is to be made");
    assert_eq!(names(&database).await, ["first"]);
    let later = Migration { version: 3, suits: 1, statements: &["create table other (id bigint)"] };
    database.migrate("thing", &[later]).await.expect_err("which it may not");

    let drop = format!("drop owned by {user}; drop user {user}");
    owner.execute(AssertSqlSafe(drop)).await.expect("dropped");
}

#[tokio::test]
async fn a_database_that_is_made_here_takes_every_text_whatever_the_servers_own_are_in() {
    let (Some(Fixture { place, database }), Some((_, mut operator))) = (Fixture::new().await, operator().await) else {
        return;
    };
    let url: PostgresUrl = place.url.parse().expect("a URL");
    let select = "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = $1";
    let row = sqlx::query(select).bind(url.database()).fetch_one(&mut operator).await.expect("it is there");
    let found: (String, String) = (sqlx::Row::get(&row, 0), sqlx::Row::get(&row, 1));
    assert_eq!(found, ("UTF8".to_owned(), "C".to_owned()), "C goes with each encoding of the server");
    let mut tx = database.begin().await.expect("begun");
    tx.execute(insert(2, "日本 🦀")).await.expect("inserted");
    tx.commit().await.expect("committed");
    assert_eq!(names(&database).await, ["first", "日本 🦀"]);
}

#[tokio::test]
async fn what_a_url_asks_for_is_what_its_sessions_have() {
    let (Some(engine), Some((url, mut operator))) = (Engine::postgres(), operator().await) else { return };
    let row = operator.fetch_one("show unix_socket_directories").await.expect("shown");
    let folder: String = sqlx::Row::get(&row, 0);
    let folder = folder.split(',').next().expect("one").to_owned();
    let port = url.options().expect("usable").get_port();
    let name = "socket and settings";
    let place = engine.place();
    let database = place.url.parse::<PostgresUrl>().expect("a URL").database().expect("its name").to_owned();
    for host in [format!("postgresql://postgres@:{port}/{database}?host={folder}&"), format!("{}?", place.url)] {
        let url = format!(
            "{host}application_name=socket%20and%20settings&connect_timeout=2&sslmode=disable&target_session_attrs=read-write\
             &options=-c%20statement_timeout%3D1234%20-csearch_path%3Dpublic%5C%20"
        );
        let store = open(&url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let select = "select current_setting('application_name'), current_setting('statement_timeout'), \
                      current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle')";
        let rows = store.read(Sql::new(select)).await.expect("readable");
        let settings: Vec<_> = (0..4).map(|column| rows[0].text(column).expect("a setting").to_owned()).collect();
        let idle = if host.contains("?host=") { "0" } else { "10" };
        assert_eq!(settings, [name, "1234ms", "5s", idle], "{url}");
    }
    let unknown = open(&format!("{}?options=-c%20no_such%3D1", place.url)).await.err().expect("refused");
    let said = meshwork::cause::with_causes(&unknown);
    assert!(said.contains("no_such"), "{said}");
}

#[tokio::test]
async fn a_parameter_that_is_not_honoured_is_refused_before_anything_is_connected() {
    for (url, named) in [
        ("postgres://127.0.0.1:1/shop?sslcrl=x", "sslcrl"),
        ("postgres://127.0.0.1:1,127.0.0.1:2/shop", "several hosts"),
        ("postgresql://[::1/shop", "["),
    ] {
        let refused = open(url).await.err().expect("refused");
        assert!(matches!(&refused, StoreError::InvalidUrl { .. }), "{refused:?}");
        assert!(refused.to_string().contains(named), "{refused}");
    }
}

#[tokio::test]
async fn behind_a_pgbouncer_a_database_is_made_used_and_listened_to_as_if_it_were_not_there() {
    let Some(proxy) = PgBouncer::start("session") else { return };
    let place = proxy.engine().place();
    let (one, other) = (place.open().await, place.open().await);
    one.migrate("thing", MIGRATIONS).await.expect("the schema");
    let rows = one.read(Sql::new("select current_setting('lock_timeout')")).await.expect("readable");
    assert_eq!(rows[0].text(0).expect("a setting"), "8s");
    let mut others = other.notifier().expect("PostgreSQL has one").subscribe(Topic::Members);
    for number in 2..50 {
        let mut tx = one.begin().await.expect("begun");
        tx.execute(insert(number, "through")).await.expect("inserted");
        tx.commit().await.expect("committed");
    }
    let mut calls = tokio::time::interval(Duration::from_millis(20));
    let heard = async {
        // Woken first because it begins to listen.
        let mut woken = 0;
        while woken < 2 {
            tokio::select! {
                _ = calls.tick() => one.notifier().expect("PostgreSQL has one").notify(Topic::Members),
                _ = others.changed() => woken += 1,
            }
        }
    };
    timeout(SOON, heard).await.expect("nothing polls for members");
    assert_eq!(names(&other).await.len(), 49);
}

#[tokio::test]
async fn a_pgbouncer_that_hands_sessions_out_by_transaction_is_refused() {
    for pool_mode in ["transaction", "statement"] {
        let Some(proxy) = PgBouncer::start(pool_mode) else { return };
        let place = proxy.engine().place();
        let refused = open(&place.url).await.err().expect("its sessions are shared");
        assert!(matches!(&refused, StoreError::Unsuitable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("pool_mode = session"), "{refused}");
    }
}
