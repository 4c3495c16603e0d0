//! The service as a real process: what it says, and how it ends.

use meshwork_fixture::{EarlyService, Program, expect_refused_flags};
use meshwork_process::Listener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshwork-query");

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

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_instance_id_the_newer_one_serves_and_the_older_ends_with_exit_code_3() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let listener = Listener::new(listener).expect("bound");
    let registry = listener.address().to_string();
    let config = meshwork_registry::Config::new(registry.clone());
    tokio::spawn(meshwork_registry::run(config, listener, std::future::pending::<()>()));

    let folder = tempfile::tempdir().expect("a folder");
    let start = |name: &str| {
        let database = format!("sqlite://{}", folder.path().join(name).display());
        let flags = ["--registry", &registry, "--cache-dir", "", "--database-url", &database, "--lease-ttl", "1s"];
        let mut program = Program::start(PROGRAM, &[&flags[..], &["--instance-id", "query-1"]].concat());
        program.wait_for("registered");
        program
    };
    let ended = tokio::task::spawn_blocking({
        let (older, newer) = (start("older.db"), start("newer.db"));
        move || {
            let code = older.end();
            newer.terminate();
            (code, newer.end())
        }
    });
    assert_eq!(ended.await.expect("no panic"), (Some(3), Some(0)));
}
