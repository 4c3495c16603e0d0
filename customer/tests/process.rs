//! The service as a real process: what it says, and how it ends.

use meshwork_events::{
    outbox::Outbox,
    store::{self, Migration},
};
use meshwork_fixture::{EarlyService, expect_refused_flags};
use meshwork_process::Listener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshwork-customer");

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

#[tokio::test]
async fn a_database_of_another_service_or_of_a_newer_program_is_refused_before_anything_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let another = store::open(&url("another.db")).await.expect("a database");
    Outbox::open(another, "order").await.expect("a log");
    let newer = store::open(&url("newer.db")).await.expect("a database");
    let later = Migration { version: 1000, suits: 999, statements: &["create table later (id bigint primary key)"] };
    newer.migrate("customer", &[later]).await.expect("the schema");
    drop(newer);

    let says = "belongs to the service \"order\"";
    expect_refused_flags(PROGRAM, &["--database-url", &url("another.db")], says);
    expect_refused_flags(PROGRAM, &["--database-url", &url("newer.db")], "schema version 1000");
}
