//! The environment as people and platforms set it.

use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{HostPort, InstanceArgs, LogArgs, StoreArgs, command_line::read};

#[derive(Parser, Debug)]
#[command(disable_version_flag = true)]
struct Member {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Parser, Debug)]
struct Tool {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    Run {
        #[arg(long, env = "TOOL_LISTEN", default_value = "127.0.0.1:1")]
        listen: HostPort,
        #[arg(long, env = "TOOL_PATH")]
        path: PathBuf,
    },
    Stop,
}

fn parse<A: Parser>(line: &str, environment: &[(&str, &str)]) -> Result<A, String> {
    let variable = |name: &std::ffi::OsStr| {
        environment.iter().find(|(set, _)| name == *set).map(|(_, value)| std::ffi::OsString::from(value))
    };
    let parsed = read(A::command(), line.split_whitespace().map(Into::into), &variable);
    let parsed = parsed.map_err(|refused| refused.to_string())?;
    Ok(A::from_arg_matches(&parsed.matches).expect("it was parsed"))
}

fn member(line: &str, environment: &[(&str, &str)]) -> Result<Member, String> {
    let database = ("DATABASE_URL", "sqlite://x.db\n");
    parse(&format!("member {line}"), &[&[database], environment].concat())
}

#[test]
fn an_empty_twin_is_unset_whatever_the_flag_is() {
    let variables = [
        "MESHWORK_REGISTRY",
        "MESHWORK_CACHE_DIR",
        "MESHWORK_LISTEN",
        "MESHWORK_ADVERTISE",
        "MESHWORK_INSTANCE_ID",
        "MESHWORK_ZONE",
        "MESHWORK_WEIGHT",
        "MESHWORK_SUBSET",
        "MESHWORK_LABELS",
        "MESHWORK_LEASE_TTL",
        "MESHWORK_LOG",
        "RUST_LOG",
        "MESHWORK_INSECURE",
    ];
    let plain = format!("{:?}", member("", &[]).expect("defaults"));
    for empty in ["", " ", "\n", " \t\r\n"] {
        let environment: Vec<_> = variables.iter().map(|name| (*name, empty)).collect();
        assert_eq!(format!("{:?}", member("", &environment).expect("as if unset")), plain, "{empty:?}");
    }
    let none: Result<Member, _> = parse("member", &[("DATABASE_URL", "\n")]);
    assert!(none.expect_err("it is required").contains("--database-url"));
}

#[test]
fn blanks_and_newlines_around_a_value_are_dropped_also_within_lists() {
    let environment = [
        ("MESHWORK_LISTEN", " 127.0.0.1:0\n"),
        ("MESHWORK_REGISTRY", "a:1, b:2,\n"),
        ("MESHWORK_LABELS", "team=red, tier = 1 \n"),
        ("MESHWORK_CACHE_DIR", "/a folder\n"),
    ];
    let Member { instance, store, .. } = member("", &environment).expect("good values");
    assert_eq!(store.database_url, "sqlite://x.db");
    assert_eq!(
        (instance.listen.to_string().as_str(), instance.registry.as_slice()),
        ("127.0.0.1:0", ["a:1", "b:2"].map(String::from).as_slice())
    );
    assert_eq!(instance.labels[0], ("team".to_owned(), "red".to_owned()));
    assert_eq!(instance.labels[1..], [("tier".to_owned(), "1".to_owned())]);
    assert_eq!(instance.cache_dir, Some(PathBuf::from("/a folder")));
}

#[test]
fn a_switch_takes_the_usual_words() {
    for (word, on) in [
        ("1", true),
        ("TRUE", true),
        ("Yes", true),
        ("on\n", true),
        ("0", false),
        ("no", false),
        ("Off", false),
        ("false", false),
    ] {
        assert_eq!(member("", &[("MESHWORK_INSECURE", word)]).expect(word).instance.insecure.insecure, on, "{word}");
    }
    assert!(member("--insecure", &[("MESHWORK_INSECURE", "0")]).expect("the flag wins").instance.insecure.insecure);
    let refused = member("", &[("MESHWORK_INSECURE", "maybe")]).expect_err("no such word");
    assert!(refused.contains("'maybe' for MESHWORK_INSECURE: must be 1, true"), "{refused}");
}

#[test]
fn a_bad_value_names_its_variable_and_a_good_flag_hides_it() {
    for (name, value, accepted) in [
        ("MESHWORK_LISTEN", "7600", "HOST:PORT"),
        ("MESHWORK_ADVERTISE", "0.0.0.0:80", "others can connect to"),
        ("MESHWORK_INSTANCE_ID", "a b", "visible ASCII"),
        ("MESHWORK_WEIGHT", "0", "1-1000"),
        ("MESHWORK_LOG", "xml", "human, json"),
        ("MESHWORK_LABELS", "a=1,b", "KEY=VALUE"),
        ("MESHWORK_DRAIN_LIMIT", "soon", "ms, s, m or h"),
    ] {
        let refused = member("", &[(name, value)]).expect_err(value);
        assert!(refused.contains(&format!("for {name} (for --")) && refused.contains(accepted), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
    assert!(member("--weight 5", &[("MESHWORK_WEIGHT", "0")]).is_ok());
    let refused = member("--weight 0", &[("MESHWORK_WEIGHT", "5")]).expect_err("the flag's");
    assert!(refused.contains("'--weight") && !refused.contains("MESHWORK_WEIGHT"), "{refused}");
}

#[test]
fn a_value_that_is_not_utf_8_names_its_variable_and_stays_unseen() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};
    let line = ["member", "--database-url", "sqlite://x.db"].map(Into::into).into_iter();
    let variable = |name: &std::ffi::OsStr| (name == "MESHWORK_WEIGHT").then(|| OsString::from_vec(vec![b'5', 0xff]));
    let refused = read(Member::command(), line, &variable).expect_err("not UTF-8").to_string();
    assert_eq!(refused, "error: MESHWORK_WEIGHT (for --weight): is not valid UTF-8");
}

#[test]
fn what_cannot_be_read_of_rust_log_is_ignored_with_a_warning_and_the_flag_stays_strict() {
    for (value, level, ignored) in [
        ("hyper", "info", &["hyper"][..]),
        ("loud", "info", &["loud"]),
        ("debug,", "debug", &[""]),
        ("[span{a=1}]=debug", "info", &["[span{a=1}]=debug"]),
        ("warn,[span{a=1,b}]=debug,hyper,order=debug", "warn,order=debug", &["[span{a=1", "b}]=debug", "hyper"]),
        ("warn,tower=info", "warn,tower=info", &[]),
    ] {
        let line = ["member", "--database-url", "sqlite://x.db"].map(Into::into).into_iter();
        let variable = |name: &std::ffi::OsStr| (name == "RUST_LOG").then(|| value.into());
        let parsed = read(Member::command(), line, &variable).expect(value);
        assert_eq!(Member::from_arg_matches(&parsed.matches).expect("parsed").log.log_level, level, "{value}");
        let warnings =
            ignored.iter().map(|directive| format!("warning: RUST_LOG: {directive:?} is not a level and is ignored; "));
        let warnings: Vec<_> = warnings.collect();
        assert_eq!(parsed.warnings.len(), warnings.len(), "{:?}", parsed.warnings);
        assert!(
            parsed.warnings.iter().zip(&warnings).all(|(line, begin)| line.starts_with(begin)),
            "{:?}",
            parsed.warnings
        );
    }
    let refused = member("--log-level hyper", &[("RUST_LOG", "info")]).expect_err("the flag's");
    assert!(refused.contains("'hyper' for '--log-level"), "{refused}");
}

#[test]
fn twins_of_subcommands_are_read_for_the_one_that_is_asked_for() {
    let environment = [("TOOL_LISTEN", "localhost:7\n"), ("TOOL_PATH", "/data")];
    let tool: Tool = parse("tool run", &environment).expect("good values");
    let Task::Run { listen, path } = tool.command else { panic!("run") };
    assert_eq!((listen.to_string().as_str(), path), ("localhost:7", PathBuf::from("/data")));
    let refused = parse::<Tool>("tool run", &[("TOOL_LISTEN", "x"), ("TOOL_PATH", "/")]).expect_err("no address");
    assert!(refused.contains("TOOL_LISTEN"), "{refused}");
    assert!(parse::<Tool>("tool stop", &[("TOOL_LISTEN", "x")]).is_ok());
}
