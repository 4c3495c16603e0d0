//! The command as a real process: what it says without flags, and what a start that fails leaves behind.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use meshwork_fixture::{Program, expect_refused_flags, restart_port};

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshwork");

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn up(data: &Path, flags: &[&str]) -> Program {
    let data = data.to_str().expect("UTF-8");
    Program::start(PROGRAM, &[&["up", "--registry-addr", "127.0.0.1:0", "--data-dir", data], flags].concat())
}

/// A small mesh, and its registry.
fn mesh(data: &Path) -> (Program, String) {
    let mut program = up(data, &["--replicas", "customer=1,order=1,query=1", "--json"]);
    program.wait_for(r#""registry":"#);
    let ready: serde_json::Value = serde_json::from_str(&program.heard[0]).expect("JSON");
    let registry = ready["registry"].as_str().expect("an address").to_owned();
    (program, registry)
}

/// What a command that succeeds prints on stdout, and on stderr.
fn run(line: &str, registry: &str) -> (String, String) {
    let ended = Command::new(PROGRAM).args(line.split(' ')).args(["--registry", registry]).output();
    let ended = ended.expect("it can be started");
    let [out, err] = [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).expect("UTF-8"));
    assert!(ended.status.success(), "{line}: {err}");
    (out, err)
}

#[test]
fn without_a_command_it_shows_its_help_and_its_version_is_its_own() {
    let mut program = Program::start(PROGRAM, &[]);
    program.wait_for("Usage: meshwork");
    assert_eq!(program.end(), Some(2));
    for flag in ["--version", "-V"] {
        let mut program = Program::start(PROGRAM, &[flag]);
        program.wait_for(&format!("meshwork {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(program.end(), Some(0));
    }
}

#[test]
fn a_closed_stderr_changes_no_exit_code() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port().to_string();
    let registry = format!("127.0.0.1:{port}");
    for (line, code) in [(vec!["services", "--registry", &registry], 1), (vec!["up", "--base-port", "x"], 2)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = std::process::Command::new(PROGRAM).args(&line).env("RUST_LOG", "!!").stderr(writer).status();
        assert_eq!(ended.expect("it runs").code(), Some(code), "{line:?}");
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_files() {
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    fs::create_dir(&data).expect("made");
    fs::write(data.join("order.db"), "this is no database, and it is long enough to be looked at: ".repeat(100))
        .expect("written");
    let mut program = up(&data, &[]);
    program.wait_for("order.db");
    assert_eq!(program.end(), Some(2));
    assert_eq!(entries(&data), ["order.db"]);

    fs::remove_file(data.join("order.db")).expect("there");
    fs::write(data.join("policies.json"), "these are no policies").expect("written");
    let mut program = up(&data, &[]);
    program.wait_for("policies.json");
    assert_eq!(program.end(), Some(2));
    assert_eq!(entries(&data), ["policies.json"]);
}

#[test]
fn a_start_that_fails_leaves_the_files_that_others_put_into_its_folder_meanwhile() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    let mut program = up(&data, &["--database-url", &format!("postgres://me@{address}/shop")]);
    program.wait_for("waiting for the database");
    fs::create_dir(data.join("photos")).expect("made");
    for name in ["notes.txt", "photos/1.png"] {
        fs::write(data.join(name), "not the mesh's").expect("written");
    }
    program.terminate();
    assert_eq!(program.end(), Some(0));
    assert_eq!(entries(&data), ["notes.txt", "photos"]);
    assert_eq!(entries(&data.join("photos")), ["1.png"]);
}

#[test]
fn a_stop_while_the_database_is_waited_for_is_said_and_in_order_and_leaves_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let home = tempfile::tempdir().expect("a folder");
    let mut program = up(&home.path().join("data"), &["--database-url", &format!("postgres://me@{address}/shop")]);
    program.wait_for("waiting for the database");
    program.terminate();
    program.wait_for("stopped before the mesh was ready");
    assert_eq!(program.end(), Some(0));
    assert_eq!(entries(home.path()), [""; 0]);
}

#[test]
fn a_mesh_says_where_it_is_before_all_else_and_in_the_end_that_it_has_stopped() {
    let home = tempfile::tempdir().expect("a folder");
    let mut program = up(&home.path().join("data"), &["--replicas", "customer=1,order=1,query=1"]);
    program.wait_for("mesh is ready");
    assert!(program.heard[0].starts_with("SERVICE"), "{:#?}", program.heard);
    program.terminate();
    program.wait_for("stopped");
    assert!(program.heard.iter().skip_while(|line| *line != "mesh is ready").count() <= 4, "{:#?}", program.heard);
    assert_eq!(program.end(), Some(0));
}

#[test]
fn metrics_on_the_registrys_port_are_refused_by_their_flag_and_on_a_free_one_are_named() {
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let address = format!("127.0.0.1:{}", restart_port().expect("a free port"));
    let both = ["up", "--data-dir", data, "--registry-addr", &address, "--admin-listen", &address];
    expect_refused_flags(PROGRAM, &both, &format!("--admin-listen {address}: is where the registry listens too"));

    for (flags, begin) in
        [(&["--json"] as &[&str], r#""metrics":"http://127.0.0.1:"#), (&[], "metrics: http://127.0.0.1:")]
    {
        let one_each = ["--replicas", "customer=1,order=1,query=1", "--admin-listen", "127.0.0.1:0"];
        let mut program = up(Path::new(data), &[&one_each, flags].concat());
        program.wait_for(begin);
        let line = program.heard.last().expect("heard");
        let port = line.split(begin).nth(1).expect("said").split('/').next().expect("a port");
        TcpStream::connect(format!("127.0.0.1:{port}")).expect("metrics are served there");
        program.terminate();
        assert_eq!(program.end(), Some(0));
    }
}

#[test]
fn with_json_logs_all_that_a_mesh_says_on_stderr_is_json() {
    let home = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let base_port = taken.local_addr().expect("bound").port().to_string();
    let ours = ["--log", "json", "--json", "--replicas", "customer=1,order=1,query=1", "--base-port", &base_port];
    let mut program = up(&home.path().join("data"), &ours);
    program.wait_for(r#""registry":"#);
    // It is held by this one.
    let mut second = up(&home.path().join("data"), &ours);
    second.wait_for("another process uses this folder");
    program.terminate();
    program.wait_for("stopped");
    for said in program.heard.iter().chain(&second.heard) {
        assert!(serde_json::from_str::<serde_json::Value>(said).is_ok_and(|line| line.is_object()), "{said}");
    }
    for part in ["is in use", "stopping: ", r#""stopped""#] {
        assert!(program.heard.iter().any(|said| said.contains(part)), "{part}: {:#?}", program.heard);
    }
    assert_eq!((program.end(), second.end()), (Some(0), Some(2)));
}

#[test]
fn a_signal_ends_a_command_that_is_not_done_with_the_shells_code() {
    for line in ["demo", "policy get order"] {
        // It never answers, so that the command has not ended of itself by then. One for each: a command may connect twice.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = silent.local_addr().expect("bound").to_string();
        let words: Vec<_> = line.split(' ').chain(["--registry", &address]).collect();
        let program = Program::start(PROGRAM, &words);
        silent.accept().expect("it asks");
        program.terminate();
        assert_eq!(program.end(), Some(143), "{line}");
    }
}

/// The exit code of a command that prints to a full device, and what it says.
fn on_a_full_device(line: &[&str]) -> (Option<i32>, String) {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let ended = Command::new(PROGRAM).args(line).stdout(full).output().expect("it can be started");
    (ended.status.code(), String::from_utf8(ended.stderr).expect("UTF-8"))
}

#[test]
fn what_cannot_be_printed_is_an_error_that_says_whether_the_work_was_done() {
    let home = tempfile::tempdir().expect("a folder");
    let package = home.path().join("inventory");
    for line in [&["--help"] as &[&str], &["-V"], &["policy", "set", "--help"]] {
        let (code, said) = on_a_full_device(line);
        assert!(code == Some(1) && said.starts_with("error: cannot write the output: "), "{line:?}: {code:?} {said}");
    }
    let (code, said) = on_a_full_device(&["new", "inventory", "--path", package.to_str().expect("UTF-8")]);
    let done = "error: done, but the output could not be written: ";
    assert!(code == Some(1) && said.starts_with(done), "{code:?} {said}");
    assert!(package.join("Cargo.toml").exists());
}

#[test]
fn every_command_for_the_policy_of_a_service_that_never_registered_warns_of_it() {
    let home = tempfile::tempdir().expect("a folder");
    let (_program, registry) = mesh(&home.path().join("data"));
    for line in ["policy get odrer", "policy set odrer --timeout 2s", "split odrer --clear", "policy clear odrer"] {
        let (_, warned) = run(line, &registry);
        assert!(warned.starts_with(r#"warning: no instance of "odrer" has registered yet"#), "{line}: {warned}");
    }
    assert_eq!(run("policy get order", &registry).1, "");
}

#[test]
fn an_instance_with_its_stats_has_the_status_and_the_store_that_the_registry_has() {
    let home = tempfile::tempdir().expect("a folder");
    let (_program, registry) = mesh(&home.path().join("data"));
    let [listed, with_stats] = ["instances order --json", "instances order --stats --json"].map(|line| {
        let all: serde_json::Value = serde_json::from_str(&run(line, &registry).0).expect("JSON");
        all["instances"][0].clone()
    });
    assert_eq!(with_stats["status"], "INSTANCE_STATUS_SERVING");
    for field in ["status", "storeId", "createTime", "labels"] {
        assert_eq!(with_stats[field], listed[field], "{field}");
    }
    assert_ne!(with_stats["storeId"], "");
    assert_eq!(with_stats["state"], "ready");
}
