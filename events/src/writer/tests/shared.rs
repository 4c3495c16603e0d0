//! What holds when several processes write to one PostgreSQL database, when it restarts, and when an answer is lost.
//! Each [`start`] acts as a separate process.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

use super::*;
use crate::store::{Database, fixture::Cluster};

/// Generous: only a promise that is broken takes this long.
const SOON: Duration = Duration::from_secs(60);
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

async fn sum(database: &Database) -> i64 {
    let select = Sql::new("select cast(coalesce(sum(balance), 0) as bigint) from account");
    database.read(select).await.expect("readable")[0].int(0).expect("a sum")
}

#[tokio::test]
async fn many_processes_with_the_same_rows_lose_no_update_and_never_deadlock() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let (first, writer) = start(&place).await;
    // Rows that are there: a row that two processes make at once is the decider's to guard, see `Decider::load`.
    let new = join_all(NAMES.map(|name| writer.submit(book(name, 1)))).await;
    assert!(new.iter().all(Result::is_ok));

    let processes = join_all((0..4).map(|_| start(&place))).await;
    let load = processes.iter().enumerate().map(|(process, (_, writer))| async move {
        // Each in another order.
        let names = (0..400).map(|n| NAMES[(n * (2 * process + 1) + process) % NAMES.len()]);
        let answers = stream::iter(names).map(|name| writer.submit(book(name, 1))).buffer_unordered(64);
        assert!(answers.all(|answer| async move { answer.is_ok() }).await);
    });
    timeout(SOON, join_all(load)).await.expect("done");
    assert_eq!(sum(first.database()).await, 8 + 4 * 400);
    // Each account's events stand in the log in the order of its changes: what came of another comes behind it.
    let versions = "select payload, aggregate_version from outbox order by payload, position";
    let versions = first.database().read(Sql::new(versions)).await.expect("readable");
    let versions: Vec<i64> = versions.iter().map(|row| row.int(1).expect("a version")).collect();
    assert_eq!(versions, (0..8).flat_map(|_| 1..=201).collect::<Vec<_>>());

    for (_, writer) in processes {
        writer.close().await;
    }
    writer.close().await;
    // A server process reports its deadlocks when it ends, at the latest.
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    drop(first);
    let database = place.open().await;
    let ended = async {
        // Of this handle itself: one that listens, and one that reads.
        while database.read(Sql::new(others)).await.expect("readable")[0].int(0).expect("a count") > 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, ended).await.expect("connections end with their stores");
    assert_eq!(database.read(Sql::new(deadlocks)).await.expect("readable")[0].int(0).expect("a count"), 0);
}

#[tokio::test]
async fn of_two_that_begin_with_the_same_events_only_one_has_effects() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let processes = [start(&place).await, start(&place).await];
    // From the first event on, where there is no cursor yet that could be locked, and then from where it stands.
    for (partition, after) in (0..16).flat_map(|partition| [(partition, 0), (partition, 1)]) {
        let claim = CursorMove {
            cursor: "bank".into(),
            store_id: "s".into(),
            partition,
            after,
            through: after + 1,
            through_event_id: String::new(),
        };
        let both = join_all(processes.iter().map(|(_, writer)| async {
            let answer = writer.enqueue_consumed(vec![book("a", 1).into()], claim.clone()).await.expect("queued");
            answer.await.expect("the writer answers")
        }));
        let fenced = both.await.iter().filter(|answer| matches!(answer, Err(WriteError::Fenced))).count();
        assert_eq!(fenced, 1, "partition {partition} after {after}");
    }
    assert_eq!(sum(processes[0].0.database()).await, 32);
}

/// The rules of [`Accounts`]; the first save waits until it is released, as if its process had been stopped.
#[derive(Default)]
struct Stopped {
    reached: Notify,
    go_on: Notify,
    was_stopped: AtomicBool,
}

impl Decider for Stopped {
    type Key = &'static str;
    type Row = i64;
    type Input = Book;
    type Reply = i64;
    type Refusal = Overdrawn;

    fn keys(&self, input: &Book, keys: &mut Vec<&'static str>) {
        Accounts.keys(input, keys);
    }

    fn decide(&self, rows: &Rows<&'static str, i64>, input: &Book) -> Result<Outcome<Self>, Overdrawn> {
        let Outcome { rows, events, reply } = Accounts.decide(rows, input)?;
        Ok(Outcome { rows, events, reply })
    }

    async fn load(
        &self,
        tx: &mut dyn Transaction,
        keys: &[&'static str],
    ) -> Result<Vec<(&'static str, i64)>, StoreError> {
        Accounts.load(tx, keys).await
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(&'static str, i64)]) -> Result<(), StoreError> {
        if !self.was_stopped.swap(true, Ordering::Relaxed) {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
        Accounts.save(tx, changed).await
    }
}

#[tokio::test]
async fn a_zombie_that_stood_still_before_its_commit_cannot_commit_and_is_fenced_when_it_tries_again() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let (outbox, rival) = start(&place).await;
    let rules = Arc::new(Stopped::default());
    let zombie = Outbox::open(place.open().await, "account").await.expect("a log");
    let zombie = Writer::start(zombie, rules.clone());

    let claim = CursorMove {
        cursor: "bank".into(),
        store_id: "s".into(),
        partition: 0,
        after: 0,
        through: 1,
        through_event_id: String::new(),
    };
    let zombies = zombie.enqueue_consumed(vec![book("a", 5).into()], claim.clone()).await.expect("queued");
    timeout(SOON, rules.reached.notified()).await.expect("between its locks and its commit");
    // It holds the cursor until the server ends its session.
    let rivals = rival.enqueue_consumed(vec![book("a", 5).into()], claim.clone()).await.expect("queued");
    let rivals = timeout(SOON, rivals).await.expect("taken over").expect("the writer answers");
    assert!(rivals.is_ok(), "{rivals:?}");

    rules.go_on.notify_one();
    let zombies = timeout(SOON, zombies).await.expect("it goes on").expect("the writer answers");
    let Err(WriteError::Store(error)) = &zombies else { panic!("{zombies:?}") };
    assert!(matches!(**error, StoreError::Unavailable(_)), "its session is gone: {error:?}");
    let again = zombie.enqueue_consumed(vec![book("a", 5).into()], claim).await.expect("queued");
    let again = timeout(SOON, again).await.expect("it tries again").expect("the writer answers");
    assert!(matches!(again, Err(WriteError::Fenced)), "{again:?}");
    assert_eq!(sum(outbox.database()).await, 5, "once");
}

/// Keeps each id once. Two batches that make the same row at once conflict.
struct Ids;

impl Decider for Ids {
    type Key = i64;
    type Row = ();
    type Input = i64;
    type Reply = bool;
    type Refusal = Overdrawn;

    fn keys(&self, input: &i64, keys: &mut Vec<i64>) {
        keys.push(*input);
    }

    fn decide(&self, rows: &Rows<i64, ()>, input: &i64) -> Result<Outcome<Self>, Overdrawn> {
        let known = rows.get(input).is_some();
        let rows = if known { Vec::new() } else { vec![(*input, ())] };
        Ok(Outcome { rows, events: Vec::new(), reply: !known })
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[i64]) -> Result<Vec<(i64, ())>, StoreError> {
        let rows = tx.fetch(Sql::new("select id from known where id ").in_list(keys.iter().copied())).await?;
        rows.iter().map(|row| Ok((row.int(0)?, ()))).collect()
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(i64, ())]) -> Result<(), StoreError> {
        let rows = changed.iter().map(|(id, ())| [(*id).into()]);
        tx.execute(Sql::new("insert into known (id) ").values(rows)).await.map(drop)
    }
}

#[tokio::test]
async fn batches_that_conflict_are_repeated_until_each_input_is_decided_on_what_was_committed() {
    const IDS: Range<i64> = 0..200;
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let processes = join_all((0..3).map(|_| async {
        let database = place.open().await;
        let create =
            Migration { version: 1, suits: 1, statements: &["create table known (id bigint not null primary key)"] };
        database.migrate("known", &[create]).await.expect("the schema");
        Writer::start(Outbox::open(database, "known").await.expect("a log"), Arc::new(Ids))
    }))
    .await;
    let answers = join_all(processes.iter().map(|writer| async {
        let answers: Vec<_> = stream::iter(IDS).map(|id| writer.submit(id)).buffered(8).collect().await;
        answers.into_iter().map(|answer| answer.expect("never refused").reply).collect::<Vec<bool>>()
    }));
    let answers = timeout(SOON, answers).await.expect("done");
    let first = answers.iter().flatten().filter(|first| **first).count();
    assert_eq!(first, IDS.count(), "each id was new once: {first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_restarts_under_load_loses_nothing_that_was_acknowledged() {
    let Some(cluster) = Cluster::start() else { return };
    let place = cluster.engine().place();
    let processes = [start(&place).await, start(&place).await];
    processes[0].1.submit(book("a", 1)).await.expect("accepted");
    let stop = AtomicBool::new(false);
    let load = processes.iter().flat_map(|(_, writer)| vec![writer; 8]).map(|writer| async {
        let (mut accepted, mut unknown) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            match writer.submit(book("a", 1)).await {
                Ok(_) => accepted += 1,
                Err(WriteError::Store(error)) => match *error {
                    StoreError::CommitUnknown(_) => unknown += 1,
                    // The server took longer than a batch is repeated for; nothing has changed.
                    StoreError::Unavailable(_) => {}
                    _ => panic!("{error:?}"),
                },
                Err(error) => panic!("{error:?}"),
            }
        }
        (accepted, unknown)
    });
    let crashes = async {
        for _ in 0..3 {
            tokio::task::block_in_place(|| cluster.crash_and_restart());
            // And it serves again, before the next.
            timeout(SOON, processes[1].1.submit(book("a", 1))).await.expect("soon").ok();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = timeout(SOON, async { tokio::join!(join_all(load), crashes) }).await.expect("done");

    let (accepted, unknown) = answers.iter().fold((1, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let balance = sum(processes[0].0.database()).await;
    assert!((accepted..=accepted + unknown + 3).contains(&balance), "{accepted} + {unknown}: {balance}");
    let positions = Sql::new("select position from outbox order by position");
    let positions = processes[0].0.database().read(positions).await.expect("readable");
    let positions: Vec<i64> = positions.iter().map(|row| row.int(0).expect("a position")).collect();
    assert_eq!(positions, (1..=balance).collect::<Vec<_>>(), "one event for each, without a gap");
}

/// Stands between a store and its server, and may keep back the answer to a commit.
struct Proxy {
    url: String,
    keep_back: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(place: &Place) -> Self {
        let (scheme, rest) = place.url.split_once("://").expect("a URL");
        let (before, database) = rest.rsplit_once('/').expect("a database");
        let (user, server) = before.rsplit_once('@').expect("a user");
        let server = if server.contains(':') { server.to_owned() } else { format!("{server}:5432") };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let database = database.split('?').next().expect("a name");
        let url = format!("{scheme}://{user}@{address}/{database}?sslmode=disable");
        let keep_back = Arc::new(AtomicBool::new(false));
        let armed = keep_back.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                tokio::spawn(relay(client, server, armed.clone()));
            }
        });
        Self { url, keep_back }
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, keep_back: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut asked, mut answered) = ([0; 8192], [0; 8192]);
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let asked = &asked[..count?];
                server.write_all(asked).await?;
                let commit = asked.windows(6).any(|word| word == b"COMMIT");
                if commit && keep_back.swap(false, Ordering::Relaxed) {
                    // It is committed, but no answer says so.
                    return server.read(&mut answered).await.map(drop);
                }
                if asked.is_empty() {
                    return Ok(());
                }
            }
            count = server.read(&mut answered) => match count? {
                0 => return Ok(()),
                count => client.write_all(&answered[..count]).await?,
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_said_to_be_unknown_and_never_repeated() {
    let Some(engine) = Engine::postgres() else { return };
    let place = engine.place();
    let (direct, _) = start(&place).await;
    let proxy = Proxy::start(&place).await;
    let outbox =
        Outbox::open(store::open(&proxy.url).await.expect("through the proxy"), "account").await.expect("a log");
    let writer = Writer::start(outbox, Arc::new(Accounts));

    proxy.keep_back.store(true, Ordering::Relaxed);
    let answer = timeout(SOON, writer.submit(book("a", 5))).await.expect("answered");
    let Err(WriteError::Store(error)) = &answer else { panic!("{answer:?}") };
    assert!(matches!(**error, StoreError::CommitUnknown(_)), "{error:?}");
    assert_eq!(sum(direct.database()).await, 5, "once");

    // Consumed events may be repeated: the fence knows better than their sender.
    let consume = || async {
        let claim = CursorMove {
            cursor: "bank".into(),
            store_id: "s".into(),
            partition: 0,
            after: 0,
            through: 1,
            through_event_id: String::new(),
        };
        let answer = writer.enqueue_consumed(vec![book("a", 2).into()], claim).await.expect("queued");
        answer.await.expect("the writer answers")
    };
    proxy.keep_back.store(true, Ordering::Relaxed);
    assert!(matches!(consume().await, Err(WriteError::Store(_))));
    assert!(matches!(consume().await, Err(WriteError::Fenced)));
    assert_eq!(sum(direct.database()).await, 7);
}
