//! What the rest of the library relies on, against real files.

use std::fs::File;

use tempfile::TempDir;

use super::*;
use crate::store::{Database, open};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    suits: 1,
    statements: &[
        "create table thing (id bigint not null primary key, name text not null check (name <> 'bad'), more {bytes})",
    ],
}];

async fn database(folder: &TempDir) -> Database {
    let url = format!("sqlite://{}", folder.path().join("things.db").display());
    let database = open(&url).await.expect("a database");
    database.migrate("thing", MIGRATIONS).await.expect("the schema");
    database
}

async fn insert(tx: &mut dyn Transaction, id: i64, name: &str) -> Result<u64, StoreError> {
    let row = [id.into(), name.into(), Value::Bytes(None)];
    tx.execute(Sql::new("insert into thing (id, name, more) ").values([row])).await
}

async fn names(database: &Database) -> Vec<String> {
    let rows = database.read(Sql::new("select name from thing order by id")).await.expect("readable");
    rows.iter().map(|row| row.text(0).expect("a name").to_owned()).collect()
}

/// A separate connection to a file that may be new.
fn open_file(path: &Path) -> Connection {
    connect(path, OpenFlags::SQLITE_OPEN_CREATE).expect("opened")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

#[tokio::test]
async fn what_is_not_committed_is_rolled_back_at_once_and_holds_no_lock() {
    let folder = folder();
    let database = database(&folder).await;
    let mut dropped = database.begin().await.expect("begun");
    insert(&mut *dropped, 1, "lost").await.expect("inserted");
    drop(dropped);

    // Another connection, as a backup tool would have it, gets the lock without waiting.
    let other = Connection::open(folder.path().join("things.db")).expect("opened");
    other.execute_batch("begin immediate; rollback").expect("the lock is free");
    assert_eq!(names(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_transaction_has_the_writers_lock_from_its_begin_so_that_no_write_in_it_can_find_it_taken() {
    let folder = folder();
    let database = database(&folder).await;
    let tx = database.begin().await.expect("begun");
    let other = Connection::open(folder.path().join("things.db")).expect("opened");
    other.busy_timeout(Duration::ZERO).expect("set");
    assert!(other.execute_batch("begin immediate").is_err(), "the database is locked, for others");
    drop(tx);
    other.execute_batch("begin immediate").expect("the lock is free");
}

#[tokio::test]
async fn no_commit_copies_the_log_back_on_its_way() {
    let folder = folder();
    let database = database(&folder).await;
    let mut tx = database.begin().await.expect("begun");
    let pages = tx.fetch(Sql::new("pragma wal_autocheckpoint")).await.expect("known");
    assert_eq!(pages[0].int(0).expect("a number of pages"), 0, "a commit of the writer never checkpoints");
}

#[tokio::test]
async fn readers_see_the_last_commit_while_a_transaction_is_under_way() {
    let folder = folder();
    let database = database(&folder).await;
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "kept").await.expect("inserted");
    assert_eq!(names(&database).await, Vec::<String>::new());
    tx.commit().await.expect("committed");
    assert_eq!(names(&database).await, ["kept"]);
}

#[tokio::test]
async fn a_file_serves_one_opener_and_is_free_again_when_it_is_closed() {
    let folder = folder();
    let first = database(&folder).await;
    let url = format!("sqlite://{}", folder.path().join("things.db").display());
    let second = open(&url).await.err().expect("in use");
    assert!(matches!(&second, StoreError::InUse { .. }), "{second}");
    // By another name, and without the file that programs of 0.1 lock.
    let other_name = folder.path().join("link.db");
    let other_url = format!("sqlite://{}", other_name.display());
    std::fs::hard_link(folder.path().join("things.db"), &other_name).expect("linked");
    assert!(matches!(open(&other_url).await.err(), Some(StoreError::InUse { .. })));
    std::fs::remove_file(&other_name).expect("removed");
    std::fs::remove_file(folder.path().join("things.db.lock")).expect("removed");
    assert!(matches!(open(&url).await.err(), Some(StoreError::InUse { .. })));
    std::os::unix::fs::symlink(folder.path().join("things.db"), &other_name).expect("linked");
    assert!(matches!(open(&other_url).await.err(), Some(StoreError::InUse { .. })));
    assert!(second.to_string().contains("PostgreSQL"), "names the way out: {second}");
    let ahead = folder.path().join("ahead.db");
    std::os::unix::fs::symlink(folder.path().join("new.db"), &ahead).expect("linked");
    drop(open(&format!("sqlite://{}", ahead.display())).await.expect("made where the link leads"));
    drop(first);
    drop(open(&other_url).await.expect("free"));
    database(&folder).await;
}

#[tokio::test]
async fn errors_say_whether_repeating_helps() {
    let folder = folder();
    let database = database(&folder).await;
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "good").await.expect("inserted");
    assert!(matches!(insert(&mut *tx, 1, "again").await, Err(StoreError::Conflict(_))));
    assert!(matches!(insert(&mut *tx, 2, "bad").await, Err(StoreError::Refused(_))));
    assert!(matches!(tx.execute(Sql::new("nonsense")).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_null_is_read_back_as_null_whatever_its_column() {
    let folder = folder();
    let database = database(&folder).await;
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "null").await.expect("inserted");
    tx.commit().await.expect("committed");
    let rows = database.read(Sql::new("select more, id from thing")).await.expect("readable");
    assert_eq!(rows[0].bytes_or_null(0).expect("a bytea"), None);
    assert!(rows[0].bytes(0).is_err());
}

#[test]
fn a_long_log_is_begun_anew_unless_a_reader_stays_and_then_the_next_time() {
    let folder = folder();
    let path = folder.path().join("things.db");
    let (writer, reader, checkpointer) = (open_file(&path), open_file(&path), open_file(&path));
    checkpointer.busy_timeout(CHECKPOINT_PATIENCE).expect("set");
    writer
        .execute_batch("pragma journal_mode = wal; pragma wal_autocheckpoint = 0; create table page (x)")
        .expect("set up");
    let fill = |writer: &Connection, rows: i64| {
        let rows = format!("with recursive n(i) as (values(1) union all select i + 1 from n where i < {rows})");
        writer.execute_batch(&format!("insert into page {rows} select randomblob(4000) from n")).expect("filled");
    };
    reader.execute_batch("begin; select count(*) from page").expect("reading");
    fill(&writer, MAX_LOG_PAGES + 100);
    let writer = Mutex::new(writer);

    // It gives way, and the writer goes on in the same log.
    assert!(copy_back(&checkpointer, &writer).expect("no error") > MAX_LOG_PAGES);
    fill(&writer.blocking_lock(), 1);
    assert!(copy_back(&checkpointer, &writer).expect("no error") > MAX_LOG_PAGES, "the same log");
    reader.execute_batch("rollback").expect("done reading");
    copy_back(&checkpointer, &writer).expect("no error");
    fill(&writer.blocking_lock(), 1);
    assert!(copy_back(&checkpointer, &writer).expect("no error") < 100, "a new log");
}

#[tokio::test]
async fn migrations_run_once_and_in_order() {
    let folder = folder();
    let database = database(&folder).await;
    database.migrate("thing", MIGRATIONS).await.expect("nothing to do");
    let more =
        [MIGRATIONS[0], Migration { version: 2, suits: 1, statements: &["alter table thing add column extra bigint"] }];
    database.migrate("thing", &more).await.expect("one step");
    database.read(Sql::new("select extra from thing")).await.expect("there");
}

/// Something that happens to the files of an open database.
async fn nothing_is_acknowledged_after(what: &str, happens: impl FnOnce(&Path), undone: Option<fn(&Path)>) {
    let folder = folder();
    let database = database(&folder).await;
    let file = folder.path().join("things.db");
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "kept").await.expect("inserted");
    tx.commit().await.expect("committed");
    assert_eq!(names(&database).await, ["kept"]);
    let mut under_way = database.begin().await.expect("begun");
    insert(&mut *under_way, 2, "lost").await.expect("inserted");

    happens(&file);

    let is_replaced = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Replaced { .. }));
    assert!(is_replaced(under_way.commit().await), "{what}: a commit under way");
    assert!(is_replaced(database.begin().await.map(drop)), "{what}: a new transaction");
    let read = database.read(Sql::new("select name from thing")).await;
    assert!(is_replaced(read.map(drop)), "{what}: a read");
    assert!(is_replaced(database.check().await), "{what}: its health");
    if let Some(undo) = undone {
        undo(&file);
        database.check().await.expect("it is back");
    }
}

fn aside(file: &Path) -> PathBuf {
    file.with_extension("aside")
}

#[tokio::test]
async fn once_the_file_at_the_path_is_not_the_open_one_nothing_is_acknowledged() {
    let remove = |suffixes: &'static [&'static str]| {
        move |file: &Path| {
            for suffix in suffixes {
                std::fs::remove_file(format!("{}{suffix}", file.display())).expect("removed");
            }
        }
    };
    nothing_is_acknowledged_after("all removed", remove(&["", "-wal", "-shm", ".lock"]), None).await;
    nothing_is_acknowledged_after("the file removed", remove(&[""]), None).await;
    nothing_is_acknowledged_after("the log removed", remove(&["-wal"]), None).await;
    nothing_is_acknowledged_after("its index removed", remove(&["-shm"]), None).await;
    let away = |file: &Path| std::fs::rename(file, aside(file)).expect("moved");
    let back = |file: &Path| std::fs::rename(aside(file), file).expect("moved");
    nothing_is_acknowledged_after("moved away and back", away, Some(back)).await;
    let replace = |file: &Path| {
        std::fs::copy(file, aside(file)).expect("copied");
        std::fs::rename(aside(file), file).expect("moved");
    };
    nothing_is_acknowledged_after("another file moved there", replace, None).await;
    let cut = |file: &Path| File::options().write(true).open(file).expect("open").set_len(0).expect("cut");
    nothing_is_acknowledged_after("cut", cut, None).await;
    let cut_log = |file: &Path| cut(&PathBuf::from(format!("{}-wal", file.display())));
    nothing_is_acknowledged_after("its log cut", cut_log, None).await;
    let folder_away = |file: &Path| {
        let folder = file.parent().expect("a folder");
        std::fs::rename(folder, folder.with_extension("away")).expect("moved");
    };
    nothing_is_acknowledged_after("its folder moved", folder_away, None).await;
}

#[tokio::test]
async fn a_reader_makes_no_file_and_neither_does_whoever_opens_one_in_a_folder_that_is_not_there() {
    let folder = folder();
    let database = database(&folder).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(folder.path().join(format!("things.db{suffix}"))).expect("removed");
    }
    database.read(Sql::new("select name from thing")).await.expect_err("there is nothing to read");
    assert!(!folder.path().join("things.db").exists());

    let typo = folder.path().join("tings").join("things.db");
    let error = open(&format!("sqlite://{}", typo.display())).await.err().expect("refused");
    assert!(std::error::Error::source(&error).expect("why").to_string().contains("there is no folder"), "{error}");
    assert!(!typo.parent().expect("a folder").exists());
}

#[tokio::test]
async fn a_schema_that_is_newer_is_refused_unless_it_says_that_it_suits_the_program() {
    let folder = folder();
    let database = database(&folder).await;
    let extra = |suits| Migration { version: 2, suits, statements: &["alter table thing add column extra bigint"] };
    database.migrate("thing", &[MIGRATIONS[0], extra(1)]).await.expect("the newer program's");
    database.migrate("thing", MIGRATIONS).await.expect("it suits");

    let breaking = Migration { version: 3, suits: 3, statements: &["drop table thing"] };
    database.migrate("thing", &[MIGRATIONS[0], extra(1), breaking]).await.expect("the newest program's");
    let error = database.migrate("thing", MIGRATIONS).await.expect_err("it suits no longer");
    for part in ["version 3", "version 1", "Meshwork 0.1.0"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }

    let mut tx = database.begin().await.expect("begun");
    tx.execute(Sql::new("update schema_version set version = 99")).await.expect("changed");
    tx.commit().await.expect("committed");
    let error = database.migrate("thing", MIGRATIONS).await.expect_err("nothing says that it suits");
    assert!(error.to_string().contains("version 99, made by an unknown program"), "{error}");
}

#[tokio::test]
async fn a_backup_is_whole_and_of_one_moment_while_the_database_is_used() {
    let folder = folder();
    let database = database(&folder).await;
    let target = folder.path().join("backup.db");
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "kept").await.expect("inserted");
    tx.commit().await.expect("committed");
    // What is in the log alone, and what is not committed.
    let mut later = database.begin().await.expect("begun");
    insert(&mut *later, 2, "later").await.expect("inserted");

    let url = format!("sqlite://{}", folder.path().join("things.db").display());
    crate::store::backup(&url, target.clone()).await.expect("backed up");

    later.commit().await.expect("committed, since nothing was held");
    database.check().await.expect("well");
    let copy = open(&format!("sqlite://{}", target.display())).await.expect("opened");
    assert_eq!(names(&copy).await, ["kept"]);
    assert_eq!(names(&database).await, ["kept", "later"]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_leaves_nothing_and_replaces_nothing() {
    let folder = folder();
    let _database = database(&folder).await;
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let target = folder.path().join("backup.db");

    let missing = crate::store::backup(&url("thigns.db"), target.clone()).await;
    assert!(matches!(missing, Err(BackupError::Database(StoreError::Open { .. }))), "{missing:?}");
    assert!(!target.exists() && !folder.path().join("thigns.db").exists());

    std::fs::write(&target, "an older backup").expect("written");
    let taken = crate::store::backup(&url("things.db"), target.clone()).await;
    assert!(matches!(&taken, Err(BackupError::Target(error)) if error.kind() == std::io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&target).expect("readable"), b"an older backup");

    let elsewhere = crate::store::backup(&url("things.db"), folder.path().join("nowhere/backup.db")).await;
    assert!(matches!(elsewhere, Err(BackupError::Target(_))), "{elsewhere:?}");
    let postgres = crate::store::backup("postgres://host/order", target).await;
    assert!(matches!(postgres, Err(BackupError::Database(StoreError::UnsupportedUrl { .. }))));
}

#[tokio::test]
async fn a_backup_of_what_is_no_database_of_ours_is_refused_with_the_reason_and_not_made() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.db"), "").expect("written");
    std::fs::write(path("text.db"), "not a database, and long enough to be looked at: ".repeat(100)).expect("written");
    open_file(&path("foreign.db")).execute_batch("create table other (id bigint)").expect("made");
    std::fs::create_dir(path("folder.db")).expect("made");
    std::os::unix::net::UnixListener::bind(path("socket.db")).expect("bound");
    let target = path("backup.db");
    for (source, says) in [
        ("missing.db", "No such file or directory"),
        ("folder.db", "is a directory"),
        ("socket.db", "it is not a file"),
        ("empty.db", "it is not a database of Meshwork"),
        ("foreign.db", "it is not a database of Meshwork"),
        ("text.db", "it is not an SQLite database"),
    ] {
        let url = format!("sqlite://{}", path(source).display());
        let backup = crate::store::backup(&url, target.clone()).await;
        let Err(BackupError::Database(StoreError::Open { source: problem, .. })) = backup else { panic!("{backup:?}") };
        assert!(problem.to_string().contains(says), "{source}: {problem}");
        let made = folder.path().read_dir().expect("a folder").flatten().map(|entry| entry.file_name());
        assert!(
            !made.map(|name| name.to_string_lossy().into_owned()).any(|name| name.starts_with("backup")),
            "{source}"
        );
    }
}

#[tokio::test]
async fn a_disk_that_is_full_is_noticed_by_the_write_that_fails_until_one_succeeds() {
    let folder = folder();
    let database = database(&folder).await;
    let limit = async |pages: i64| {
        let mut tx = database.begin().await.expect("begun");
        tx.fetch(Sql::new(format!("pragma max_page_count = {pages}"))).await.expect("limited");
    };
    let big = async || {
        let mut tx = database.begin().await?;
        insert(&mut *tx, 7, &"x".repeat(1_000_000)).await?;
        tx.commit().await
    };
    limit(1).await; // No more than it has.
    database.check().await.expect("not noticed yet");
    let full = big().await.expect_err("no room");
    assert!(matches!(full, StoreError::Unavailable(_)), "{full}");
    for _ in 0..2 {
        let found = database.check().await.expect_err("no room");
        assert!(matches!(found, StoreError::Unavailable(_)), "{found}");
    }
    limit(1 << 20).await;
    database.check().await.expect("there is room again");
    big().await.expect("written");
    let tables = Sql::new("select count(*) from sqlite_master where name like 'meshwork%'");
    assert_eq!(database.read(tables).await.expect("readable")[0].int(0).expect("a count"), 0);
}

#[tokio::test]
async fn a_database_takes_every_text_whatever_its_encoding_and_what_is_none_is_refused() {
    let folder = folder();
    let file = folder.path().join("things.db");
    open_file(&file).execute_batch("pragma encoding = 'UTF-16le'; create table other (id bigint)").expect("made");
    let database = database(&folder).await;
    let mut tx = database.begin().await.expect("begun");
    insert(&mut *tx, 1, "日本 🦀").await.expect("inserted");
    tx.commit().await.expect("committed");
    assert_eq!(names(&database).await, ["日本 🦀"]);
    let encoding = database.read(Sql::new("pragma encoding")).await.expect("known");
    assert_eq!(encoding[0].text(0).expect("a name"), "UTF-16le");

    let text = folder.path().join("text.db");
    std::fs::write(&text, "a text, and no database".repeat(100)).expect("written");
    let refused = open(&format!("sqlite://{}", text.display())).await.err().expect("refused");
    assert!(meshwork::cause::with_causes(&refused).contains("file is not a database"), "{refused:?}");
    for (parameters, named) in [("?mode=ro", "synchronous (full"), ("?synchronous=off", "or normal)")] {
        let refused = open(&format!("sqlite://{}{parameters}", file.display())).await.err().expect("refused");
        assert!(matches!(&refused, StoreError::InvalidUrl { .. }) && refused.to_string().contains(named), "{refused}");
    }
}
