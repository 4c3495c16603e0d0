//! The service as a real process: what it says, and how it ends.

use meshwork_events::{
    outbox::Outbox,
    store::{self, Migration},
};
use meshwork_fixture::{EarlyService, Program, expect_refused_flags};
use meshwork_process::Listener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshwork-order");

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_yet_is_waited_for_with_one_line_and_sigterm_drains() {
    EarlyService::start(PROGRAM).expect_to_wait_and_to_drain(|port| {
        let config = meshwork_registry::Config::new(format!("127.0.0.1:{port}"));
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
            let listener = Listener::new(listener).expect("bound");
            meshwork_registry::run(config, listener, std::future::pending::<()>()).await
        });
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    EarlyService::start(PROGRAM).expect_a_second_signal_to_end_it();
}

#[test]
fn a_flag_that_cannot_be_used_is_one_line_and_exit_code_2() {
    expect_refused_flags(PROGRAM, &["--database-url", "mysql://me:secret@host"], "--database-url mysql://...: ");
    expect_refused_flags(PROGRAM, &["--database-url", "sqlite://x.db", "--listen", "x"], "'x' for '--listen");
}

#[test]
fn what_no_registry_would_accept_is_refused_with_its_flag_before_any_file_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("order.db").display());
    let long = "z".repeat(200);
    for (flag, value) in [
        ("--zone", long.as_str()),
        ("--version", &long),
        ("--instance-id", "a b"),
        ("--advertise", "0.0.0.0:7601"),
        ("--advertise", "host:0"),
        ("--lease-ttl", "1h"),
        ("--saga-deadline", "4294967295m"),
    ] {
        expect_refused_flags(PROGRAM, &["--database-url", &database, flag, value], flag);
    }
    assert_eq!(folder.path().read_dir().expect("a folder").count(), 0);
}

#[test]
fn sigterm_while_the_database_is_waited_for_ends_it_at_once_and_in_order() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let refused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    for address in [silent.local_addr().expect("bound"), refused] {
        let mut program = Program::start(PROGRAM, &["--database-url", &format!("postgres://me@{address}/shop")]);
        program.wait_for("waiting for the database");
        program.terminate();
        assert_eq!(program.end(), Some(0), "{address}");
    }
}

#[tokio::test]
async fn a_database_of_another_service_or_of_a_newer_program_is_refused_before_anything_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let another = store::open(&url("another.db")).await.expect("a database");
    Outbox::open(another, "customer").await.expect("a log");
    let newer = store::open(&url("newer.db")).await.expect("a database");
    let later = Migration { version: 1000, suits: 999, statements: &["create table later (id bigint primary key)"] };
    newer.migrate("order", &[later]).await.expect("the schema");
    drop(newer);

    let says = "belongs to the service \"customer\"";
    expect_refused_flags(PROGRAM, &["--database-url", &url("another.db")], says);
    expect_refused_flags(PROGRAM, &["--database-url", &url("newer.db")], "schema version 1000");
}
