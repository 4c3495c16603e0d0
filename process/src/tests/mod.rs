//! Flags as people type them.

mod environment;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use clap::{CommandFactory as _, Parser};
use parking_lot::Mutex;

use super::*;

#[derive(Parser)]
#[command(disable_version_flag = true)]
struct Member {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// What is logged.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("UTF-8")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

fn member(flags: &[&str]) -> Result<Member, String> {
    let flags = ["member", "--database-url", "sqlite://x.db"].iter().chain(flags);
    Member::try_parse_from(flags).map_err(|error| one_line::one_line(&error.to_string()))
}

#[test]
fn the_flags_have_the_defaults_of_the_design() {
    let Member { instance, store, log } = member(&[]).expect("all have defaults but the database");
    assert_eq!(instance.registry, ["http://127.0.0.1:7600"]);
    assert_eq!(instance.listen.to_string(), "127.0.0.1:0");
    assert_eq!((instance.lease_ttl, instance.drain_limit), (Duration::from_secs(10), Duration::from_secs(30)));
    assert_eq!((log.log, log.log_level.as_str()), (telemetry::LogFormat::Human, "info"));
    assert_eq!(store.database_url, "sqlite://x.db");
    assert!(member(&["--version", "1.0.0"]).is_ok_and(|member| member.instance.version == "1.0.0"));
}

#[test]
fn a_bad_value_is_one_line_that_names_flag_value_and_what_is_accepted() {
    for (flag, value, accepted) in [
        ("--listen", "7600", "HOST:PORT"),
        ("--listen", "localhost:http", "a port of 0-65535"),
        ("--listen", "::1:70", "[::1]:7600"),
        ("--advertise", "http://host:1", "HOST:PORT"),
        ("--weight", "-1", "must be a whole number, 1-1000"),
        ("--subset", "-1", "must be a whole number, 0-10000"),
        ("--lease-ttl", "-1s", "1s-5m"),
        ("--weight", "0", "must be a whole number, 1-1000"),
        ("--advertise", "0.0.0.0:80", "others can connect to"),
        ("--advertise", "[::]:80", "others can connect to"),
        ("--advertise", "host:0", "1-65535"),
        ("--advertise", "a b:80", "host"),
        ("--instance-id", "a b", "1-128 visible ASCII"),
        ("--zone", LONG, "up to 128 visible characters"),
        ("--version", LONG, "up to 128 visible characters"),
        ("--lease-ttl", "301s", "1s-5m"),
        ("--lease-ttl", "999ms", "ms, s, m or h"),
        ("--drain-limit", "soon", "ms, s, m or h"),
        ("--drain-limit", "4294967295m", "0s-24h"),
        ("--subset", "10001", "must be a whole number, 0-10000"),
        ("--registry", "ftp://host:1", "other schemes are not supported"),
        ("--registry", "host", "no port"),
        ("--log-level", "loud", "must be off, error, warn, info, debug or trace, or a list"),
        ("--log-level", "info,foo=bar", "\"foo=bar\" is not a level: must be off"),
        ("--label", "zone", "KEY=VALUE"),
        ("--log", "xml", "human, json"),
    ] {
        let error = member(&[flag, value]).err().expect("a bad value");
        for part in [flag, value, accepted] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_last_endpoint_sets_are_kept_for_each_mesh_apart_unless_a_folder_is_given_or_none() {
    let folder = |flags: &[&str], user_cache: Option<&str>| {
        member(flags).expect("good flags").instance.cache_folder(user_cache.map(PathBuf::from))
    };
    let there = |path: &str| Some(PathBuf::from(path));
    assert_eq!(folder(&[], Some("/home/me")), there("/home/me/meshwork/registry-127.0.0.1_7600"));
    let several = ["--registry", "http://[::1]:7601/,other:7600"];
    assert_eq!(folder(&several, Some("/home/me")), there("/home/me/meshwork/registry-___1__7601"));
    assert_eq!(folder(&["--registry", "a.b:1"], Some("/home/me")), there("/home/me/meshwork/registry-a.b_1"));
    let by_tls = ["--registry", "https://127.0.0.1:7600", "--tls-dir", "x"];
    assert_eq!(folder(&by_tls, Some("/home/me")), folder(&[], Some("/home/me")), "the same mesh, by TLS");
    assert_eq!(folder(&[], None), None, "no home, no cache");
    assert_eq!(folder(&["--cache-dir", "sets"], Some("/home/me")), there("sets"));
    assert_eq!(folder(&["--cache-dir", ""], Some("/home/me")), None);
}

#[tokio::test]
async fn a_taken_port_is_an_error_of_its_flag_and_all_addresses_need_an_advertised_one() {
    let args = member(&[]).expect("good flags").instance;
    let listener = args.bind().await.expect("a free port");
    let config = args.config("order", &listener).expect("reachable");
    assert_eq!(config.advertise, listener.address().to_string());

    let taken = member(&["--listen", &config.advertise]).expect("good flags").instance;
    let failure = taken.bind().await.expect_err("taken");
    assert_eq!(failure.exit_code(), 2);
    assert!(
        failure.to_string().starts_with(&format!("--listen {}: the port is in use", config.advertise)),
        "{failure}"
    );

    let everywhere = member(&["--listen", "0.0.0.0:0"]).expect("good flags").instance;
    let failure = everywhere.bind().await.expect_err("in plain text, to anyone");
    assert!(failure.exit_code() == 2 && failure.to_string().contains("--insecure"), "{failure}");
    let permissive = member(&["--listen", "0.0.0.0:0", "--tls-mode", "permissive"]).expect("good flags").instance;
    let failure = permissive.bind().await.expect_err("it takes plain text too");
    assert!(failure.to_string().contains("--insecure"), "{failure}");
    let strict = member(&["--listen", "0.0.0.0:0", "--tls-mode", "strict"]).expect("good flags").instance;
    strict.bind().await.expect("it takes no plain text");
    let everywhere = member(&["--listen", "0.0.0.0:0", "--insecure"]).expect("good flags").instance;
    let listener = everywhere.bind().await.expect("a free port");
    let failure = everywhere.config("order", &listener).expect_err("not reachable");
    assert!(failure.to_string().contains("--advertise"), "{failure}");
}

#[tokio::test]
async fn labels_that_no_registry_would_accept_are_refused_together() {
    let check = async |labels: &[String]| {
        let flags: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let args = member(&flags).expect("good flags").instance;
        let listener = args.bind().await.expect("a free port");
        args.config("order", &listener)
    };
    let many: Vec<_> = (0..65).map(|number| format!("key{number}=value")).collect();
    assert!(check(&many[..64]).await.is_ok());
    for (labels, says) in [
        (many, "--label (65 of them): must have up to 64 entries"),
        (vec!["a=1".into(), "a=2".into()], "gives a label twice"),
    ] {
        let failure = check(&labels).await.expect_err(says);
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains(says), "{failure}");
    }
}

#[test]
fn a_failure_tells_its_whole_chain_in_one_line() {
    let inner = std::io::Error::other("the disk is full");
    let error = meshwork::server::Error::Descriptors(Box::new(inner));
    assert_eq!(Failure::run(error).to_string(), "the descriptors cannot be read: the disk is full");
}

#[test]
fn the_help_of_an_instance_says_what_its_exit_codes_mean() {
    let line = ["member", "--help"].map(Into::into).into_iter();
    let help = command_line::read(Member::command(), line, &|_: &std::ffi::OsStr| None).expect_err("help");
    let command_line::Refused::Clap(help) = help else { panic!("help") };
    for part in ["Exit codes:", "  3         another process has registered", "MESHWORK_INSTANCE_ID"] {
        assert!(help.to_string().contains(part), "{part} is missing in: {help}");
    }
}

#[test]
fn the_help_of_a_server_that_is_no_instance_says_what_its_other_exit_codes_mean() {
    let command = || clap::Command::new("keeper").arg(clap::Arg::new("listen").long("listen"));
    let line = ["keeper", "--help"].map(Into::into).into_iter();
    let help = command_line::read(command(), line, &|_: &std::ffi::OsStr| None).expect_err("help");
    let command_line::Refused::Clap(help) = help else { panic!("help") };
    let help = help.to_string();
    assert!(help.contains("  1         ended") && !help.contains("  3         "), "{help}");
    // Wrapped or not.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!(" 2 {EXIT_CODE_2}; nothing was served 130, 143 stopped at once")), "{help}");
}
