//! The command line as people type it.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    let words = std::iter::once("meshwork").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
}

#[test]
fn the_flags_have_the_defaults_of_the_design() {
    let Ok(Command::Up(up)) = parse("up") else { panic!("up needs no flag") };
    assert_eq!(up.registry_addr.to_string(), "127.0.0.1:7600");
    assert_eq!(up.data_dir, PathBuf::from(".meshwork"));
    assert_eq!(up.replicas, Replicas::all(2));
    assert_eq!(up.telemetry.log.log_level, "warn", "its table comes first");
    assert_eq!(up.base_port(), Some(7601));
    for (line, port) in [
        ("up --registry-addr 127.0.0.1:0", None),
        ("up --registry-addr 127.0.0.1:8000", Some(8001)),
        ("up --registry-addr 127.0.0.1:65535", None),
        ("up --base-port 9000", Some(9000)),
        ("up --base-port 0", None),
    ] {
        let Ok(Command::Up(up)) = parse(line) else { panic!("{line}") };
        assert_eq!(up.base_port(), port, "{line}");
    }

    let Ok(Command::Demo(demo)) = parse("demo") else { panic!("demo needs no flag") };
    assert_eq!((demo.orders, demo.tamper, demo.registry.len()), (1000, false, 0));
    assert_eq!(demo.log.log_level, "off", "a story is told without log lines");

    let Ok(Command::Services(services)) = parse("services") else { panic!("services needs no flag") };
    assert_eq!(services.source.registry, [DEFAULT_REGISTRY]);
    assert_eq!(services.source.log.log_level, "off");
}

#[test]
fn registries_are_a_list_with_or_without_scheme() {
    let Ok(Command::Watch(watch)) = parse("watch order --registry localhost:7600,http://[::1]:7601/ --json") else {
        panic!("a good line")
    };
    assert_eq!(watch.source.registry, ["http://localhost:7600", "http://[::1]:7601"]);
    assert_eq!(watch.service.as_deref(), Some("order"));
    assert!(watch.source.json);
}

#[test]
fn a_bad_value_names_the_flag_the_value_and_what_is_accepted() {
    for (command, flag, value, accepted) in [
        ("up", "--registry-addr", "7600", "IP:PORT"),
        ("up", "--registry-addr", "127.0.0.1:70000", "a port of 0-65535"),
        ("up", "--registry-addr", "0.0.0.0:7600", "loopback"),
        ("up", "--base-port", "-1", "must be a whole number, 0-65000"),
        ("up", "--base-port", "65001", "must be a whole number, 0-65000"),
        ("up", "--log-level", "loud", "or a list such as info,meshwork=debug"),
        ("up", "--replicas", "order=0", "1-16"),
        ("up", "--replicas", "registry=3", "customer, order or query"),
        ("up", "--replicas", "order", "SERVICE=COUNT"),
        ("up", "--log", "xml", "human, json"),
        ("demo", "--orders", "0", "must be a whole number, 1-1000000"),
        ("demo", "--orders", "many", "--orders"),
        ("demo", "--orders", "-1", "must be a whole number, 1-1000000"),
        ("demo", "--customers", "-1", "must be a whole number, 1-1000"),
        ("demo", "--customers", "1001", "must be a whole number, 1-1000"),
        ("demo", "--registry", "ftp://host:7600", "https://HOST:PORT: other schemes"),
        ("services", "--registry", "7600", "no port"),
        ("instances order", "--registry", "http://host", "no port"),
        ("watch", "--registry", "http://host:1/path", "without a user, path"),
        ("health", "", "7602", "<HOST:PORT>"),
        ("health", "", "127.0.0.1:0", "1-65535"),
        (
            "policy set order",
            "--timeout",
            "2",
            "must be 1ms-1h, as a whole number with its unit: ms, s, m or h, or the word default",
        ),
        ("policy set order", "--timeout", "-1s", "1ms-1h"),
        ("policy set order", "--max-attempts", "-1", "1-10"),
        ("policy set order", "--timeout", "4294967295m", "1ms-1h"),
        ("policy set order", "--backoff-max", "61s", "1ms-1m"),
        ("policy set order", "--max-attempts", "11", "1-10"),
        ("policy set order", "--max-attempts", "-", "a whole number, 1-10, or the word default"),
        ("policy set order", "--hedging", "yes", "on or off, or the word default"),
        ("instances", "", "A_B", "must be 1-63 lowercase letters, digits and hyphens"),
        ("reconcile", "", "Order", "must be 1-63 lowercase letters"),
        ("watch", "", "or/der", "must be 1-63 lowercase letters"),
        ("policy get", "", "Order", "must be 1-63 lowercase letters"),
        ("policy clear", "", "Order", "must be 1-63 lowercase letters"),
        ("store adopt", "", "Order store", "must be 1-63 lowercase letters"),
        ("authz get", "", "Order", "must be 1-63 lowercase letters"),
        ("authz set order", "--allow", "service/query", "CALLER[,CALLER...]=METHOD[,METHOD...]"),
        ("authz set order", "--deny", "=a.C/Get", "such as service/query=shop.order.v1.OrderService/GetOrder"),
        ("authz check order/Get", "--as", "order", "must be service/NAME, operator/NAME, anonymous"),
        ("authz check order/Get", "--as", "spiffe://shop.test", "the path must be segments"),
        ("authz check --as anonymous", "", "order", "must be SERVICE/PACKAGE.SERVICE/METHOD"),
        ("authz check --as anonymous order/Get", "--mode", "open", "plain, permissive, strict"),
        ("bindings set a.B", "", "Order", "must be 1-63 lowercase letters"),
        (
            "ca init --trust-domain t",
            "--lifetime",
            "1h",
            "must be 1d-30y, as a whole number with its unit: m, h, d or y",
        ),
        ("ca issue service/order", "--lifetime", "91d", "must be 1m-90d"),
        ("ca issue service/order", "--lifetime", "-1h", "must be 1m-90d"),
        ("ca issue service/order", "--dns", "*.shop", "the name of a host"),
        ("ca issue service/order", "--ip", "order", "invalid IP address"),
        ("ca issue", "", "order", "must be service/NAME or operator/NAME"),
        ("ca issue", "", "service/Order", "must be 1-63 lowercase letters"),
        ("ca renew folder", "--every", "0s", "1s-24h"),
        ("split", "", "v1=95 order", "; the service comes first"),
        ("split order", "v1", "v1", "VERSION=SHARE, such as v1=95"),
        ("split order", "v1=much", "v1=much", "VERSION=SHARE, such as v1=95"),
        ("split order", "v1=1001", "v1=1001", "0-1000"),
    ] {
        let error = parse(&format!("{command} {flag} {value}")).expect_err(value);
        let first = error.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ");
        for part in [flag, value.split(' ').next().unwrap_or_default(), accepted] {
            assert!(first.contains(part), "{part} is missing in: {first}");
        }
    }
}

#[test]
fn a_backup_was_made_in_the_past_since_1970_at_a_time_of_a_zone() {
    let backup = |time: &str| parse(&format!("reconcile order --backup-time {time}"));
    for good in ["1970-01-01T00:00:00Z", "2026-01-29T02:00:00+02:00", "2026-01-29T02:00:00.5z"] {
        assert!(backup(good).is_ok(), "{good}");
    }
    for (bad, says) in [
        ("2999-01-01T00:00:00Z", "must not be in the future"),
        ("1969-12-31T23:59:59Z", "must not be before 1970"),
        ("2026-01-29T02:00:00", "with its zone"),
        ("2026-01-29", "with its zone"),
        ("yesterday", "must be a time as in"),
    ] {
        let error = backup(bad).expect_err(bad);
        assert!(error.contains(says) && error.contains("--backup-time"), "{error}");
    }
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    for (line, named) in [
        ("", "Usage: meshwork"),
        ("instances", "<SERVICE>"),
        ("health", "<HOST:PORT>"),
        ("split order", "<VERSION=SHARE|--clear>"),
        ("authz set order", "<--allow <CALLER,...=METHOD,...>|--file <FILE>>"),
        ("authz set order --deny *=a.C/Get", "<--allow <CALLER,...=METHOD,...>|--file <FILE>>"),
        ("authz set order --allow *=a.C/Get --file x", "'--file <FILE>'"),
        ("authz set order --file x --deny *=a.C/Get", "'--deny <CALLER,...=METHOD,...>'"),
        ("authz set order --file x --subject-caller service/a", "'--subject-caller <CALLER>'"),
        ("authz check order/Get", "--as <ID>"),
        ("bindings --json set a.B order", "subcommand"),
        ("bindings clear", "<GRPC_SERVICE>"),
        ("ca init", "--trust-domain"),
        ("ca renew", "<FOLDER>"),
        ("ca renew folder --force --every 1h", "--every"),
        ("ca rotate", "<FOLDER>"),
        ("ca rotate folder --unchecked", "--unchecked"),
        ("down", "down"),
        ("up --repicas order=1", "--repicas"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(named), "{named} is missing in: {error}");
    }
}

#[test]
fn every_command_has_examples_and_every_flag_a_help_text() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("  meshwork {}", command.get_name())), "{}: {help}", command.get_name());
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
    }
}

#[test]
fn a_certificate_is_for_a_day_and_the_names_of_a_host_are_a_list() {
    let Ok(Command::Ca(ca)) = parse("ca issue service/order --dns a.test,b.test --dns c.test --ip ::1,127.0.0.1")
    else {
        panic!("a good line")
    };
    let CaCommand::Issue(issue) = ca.command else { panic!("a certificate") };
    assert_eq!((issue.dns.join(" "), issue.ip.len()), ("a.test b.test c.test".to_owned(), 2));
    assert_eq!(issue.lifetime, crate::ca::LEAF_LIFETIME);
    assert_eq!(issue.source.ca.ca_dir, PathBuf::from(".meshwork/ca"));
    let Ok(Command::Ca(ca)) = parse("ca init --trust-domain shop.test") else { panic!("a good line") };
    let CaCommand::Init(init) = ca.command else { panic!("a CA") };
    assert_eq!((init.lifetime, init.source.log.log_level), (crate::ca::CA_LIFETIME, "off".to_owned()));
    let Ok(Command::Ca(ca)) = parse("ca renew folder") else { panic!("a good line") };
    assert_eq!(ca.command.log().log_level, "info", "a renewer logs what it does");
}

#[test]
fn a_policy_is_changed_in_something_and_a_split_is_given_or_cleared() {
    let Ok(Command::Policy(policy)) = parse("policy set order --timeout 2s --max-attempts default --hedging off")
    else {
        panic!("a good line")
    };
    let PolicyCommand::Set(PolicySetArgs { service, change, source }) = policy.command else { panic!("a change") };
    assert_eq!((service.as_str(), source.registry.as_slice()), ("order", [DEFAULT_REGISTRY.to_owned()].as_slice()));
    assert_eq!(change.timeout, Some(Setting::To(std::time::Duration::from_secs(2))));
    assert_eq!((change.max_attempts, change.hedging), (Some(Setting::Default), Some(Setting::To(false))));
    assert_eq!(change.backoff_min, None);

    let Ok(Command::Split(split)) = parse("split order v1=95 1.0=rc=5") else { panic!("a good line") };
    assert_eq!(split.shares, [("v1".to_owned(), 95), ("1.0=rc".to_owned(), 5)]);
    assert!(parse("split order --clear").is_ok());
    for bad in ["policy set", "policy", "split order", "split order v1=1 --clear"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn rules_are_repeated_flags_and_bindings_are_listed_without_a_command() {
    let line = "authz set order --allow service/a,service/b=a.C/Get --allow *=a.D/* --deny anonymous=a.D/Put \
                --subject-caller service/web --subject-caller service/app --etag 7f";
    let Ok(Command::Authz(authz)) = parse(line) else { panic!("a good line") };
    let AuthzCommand::Set(set) = authz.command else { panic!("rules") };
    let AuthzRules { allow, deny, subject_caller, file } = set.rules;
    assert_eq!((allow.len(), deny.len(), subject_caller.len(), file), (2, 1, 2, None));
    assert_eq!(set.etag.as_deref(), Some("7f"));

    let Ok(Command::Authz(authz)) = parse("authz check --as spiffe://shop.test/service/a order/a.C/Get") else {
        panic!("a good line")
    };
    let AuthzCommand::Check(check) = authz.command else { panic!("a check") };
    assert_eq!(check.mode, meshwork_process::TlsModeArg::Strict);
    assert_eq!(
        (check.caller.to_string(), check.method.to_string()),
        ("spiffe://shop.test/service/a".into(), "order/a.C/Get".into())
    );

    let Ok(Command::Bindings(bindings)) = parse("bindings --registry localhost:1 --json") else { panic!("a list") };
    assert!(bindings.command.is_none() && bindings.source().json);
    let Ok(Command::Bindings(bindings)) = parse("bindings clear a.B --registry localhost:1") else {
        panic!("a change")
    };
    assert_eq!(bindings.source().registry, ["http://localhost:1"]);
}
