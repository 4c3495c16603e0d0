//! URLs as psql takes them, and what is refused by name.

use super::*;

fn read(text: &str) -> Vec<(String, String)> {
    text.parse::<PostgresUrl>().unwrap_or_else(|error| panic!("{text}: {error}")).0.into_iter().collect()
}

/// As pairs, by name.
fn expect(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(read(text), expected, "{text}");
}

#[test]
fn a_url_is_read_as_psql_reads_it() {
    expect("postgresql://", &[]);
    expect("postgres://localhost", &[("host", "localhost")]);
    expect("postgres://db:5433/shop", &[("dbname", "shop"), ("host", "db"), ("port", "5433")]);
    expect("postgres://me@/shop", &[("dbname", "shop"), ("user", "me")]);
    expect("postgres://:secret@db", &[("host", "db"), ("password", "secret")]);
    expect("postgres://[::1]:5433/shop", &[("dbname", "shop"), ("host", "::1"), ("port", "5433")]);
    expect("postgres://[2001:db8::1]", &[("host", "2001:db8::1")]);
    expect("postgres://[::1]?user=me", &[("host", "::1"), ("user", "me")]);
    // A password needs to be encoded only where psql needs it: @, /, %.
    let password = |text, password| {
        expect(
            &format!("postgres://me:{text}@db/shop"),
            &[("dbname", "shop"), ("host", "db"), ("password", password), ("user", "me")],
        );
    };
    for unencoded in ["se:cret", "se?cret", "se#cret", "se[cret", "se&c=ret", "se cret", "sécret", "`^\"<>{}|\\"] {
        password(unencoded, unencoded);
    }
    password("%40%2f%2F%25%e6%97%A5", "@//%日");
    // A folder of sockets, in the host's place and as a parameter.
    expect("postgres://%2Fvar%2Frun/shop", &[("dbname", "shop"), ("host", "/var/run")]);
    expect("postgres:///shop?host=/var/run&port=1", &[("dbname", "shop"), ("host", "/var/run"), ("port", "1")]);
    expect("postgres://db/a?dbname=b%20c&user=me", &[("dbname", "b c"), ("host", "db"), ("user", "me")]);
    expect("postgres://db?ssl=true", &[("host", "db"), ("sslmode", "require")]);
}

#[test]
fn what_is_not_honoured_is_refused_by_its_name() {
    for (parameter, named) in [
        ("sslcrl=/tmp/crl", "sslcrl"),
        ("service=shop", "service"),
        ("statement-cache-capacity=0", "statement-cache-capacity"),
        ("replication=true", "replication"),
        ("target_session_attrs=standby", "target_session_attrs"),
        ("channel_binding=require", "channel_binding"),
        ("client_encoding=LATIN1", "client_encoding"),
        ("sslmode=no", "sslmode"),
        ("sslrootcert=system&sslmode=require", "sslrootcert"),
        ("hostaddr=1.2.3.4&sslmode=verify-full", "hostaddr"),
        ("connect_timeout=soon", "connect_timeout"),
        ("options=-e", "options"),
        ("port=0", "port"),
        ("host=a,b", "several hosts"),
    ] {
        let error = format!("postgres://db/shop?{parameter}").parse::<PostgresUrl>().expect_err(parameter);
        assert!(error.to_string().contains(named), "{parameter}: {error}");
    }
    for bad in [
        "mysql://db",
        "postgres:db",
        "postgres://[::1/db",
        "postgres://[db]",
        "postgres://[::1]5432",
        "postgres://db:x",
        "postgres://a,b/shop",
        "postgres://db/shop?sslmode",
        "postgres://db/shop?sslmode=require=x",
        "postgres://db/%zz",
        "postgres://db/%f",
        "postgres://db/%00",
        "postgres://db/%ff",
    ] {
        assert!(bad.parse::<PostgresUrl>().is_err(), "{bad}");
    }
}

#[test]
fn an_error_shows_nothing_of_a_password_that_is_not_encoded() {
    for url in [
        "postgres://me:se@cret@db/shop",
        "postgres://me:5/cret@db/shop",
        "postgres://me:5/a?cret=x@db/shop",
        "postgres://me:5/a?cret@db/shop",
        "postgres://me:se%cret@db/shop",
        "postgres://db/shop?password=cret&sslmode=cret",
        "postgres://db/shop?options=cret",
        "postgres://db/shop?port=cret",
        "postgres://db/shop?hostaddr=cret",
    ] {
        let error = url.parse::<PostgresUrl>().expect_err(url);
        assert!(!format!("{error} {error:?}").contains("cret"), "{url}: {error}");
    }
    let url: PostgresUrl = "postgres://me:cret@db".parse().expect("a URL");
    assert!(!format!("{url:?}").contains("cret"));
}

#[test]
fn what_a_url_leaves_out_is_as_the_environment_says_which_is_checked_like_the_url() {
    let with = |url: &str, variables: &[(&str, &str)]| {
        let url = url.parse::<PostgresUrl>().expect("a URL");
        url.with_environment(|asked| {
            let found = variables.iter().find(|(variable, _)| *variable == asked);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let user =
        |variables: &[(&str, &str)]| with("postgres://db", variables).map(|url| url.get("user").map(str::to_owned));
    assert_eq!(user(&[("PGUSER", "me"), ("USER", "you")]), Ok(Some("me".to_owned())));
    assert_eq!(user(&[("USER", ""), ("LOGNAME", "you")]), Ok(Some("you".to_owned())));
    assert!(user(&[]).expect_err("of nobody").to_string().contains("PGUSER"));
    let variables = [("PGPORT", "6432"), ("PGUSER", "me"), ("PGPASSWORD", "se cret \n"), ("PGSSLMODE", "")];
    let url = with("postgres://you@db", &variables).expect("usable");
    let expected = [("host", "db"), ("password", "se cret "), ("port", "6432"), ("user", "you")];
    assert_eq!(url.0, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let variables = [("USER", "me"), ("PGOPTIONS", "-c a=1"), ("PGCONNECT_TIMEOUT", "7")];
    let url = with("postgres://db", &variables).expect("usable");
    assert_eq!(url.settings(), Ok(vec![("a".to_owned(), "1".to_owned())]));
    assert_eq!(url.connect_timeout(), Ok(Duration::from_secs(7)));

    for (variable, value) in [
        ("PGSSLMODE", "cret"),
        ("PGPORT", "cret"),
        ("PGHOST", "a,b"),
        ("PGSERVICE", "cret"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREPEER", "postgres"),
        ("PGSSLROOTCERT", "system"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGOPTIONS", "-e"),
    ] {
        let url = if variable == "PGSSLMODE" { "postgres://" } else { "postgres://?sslmode=require" };
        let error = with(url, &[(variable, value)]).expect_err(variable).to_string();
        assert!(error.contains(variable) && !error.contains("cret"), "{error}");
    }
    with("postgres://me@db?port=1", &[("PGPORT", "x")]).expect("which the URL outdoes");
}

#[test]
fn what_sqlx_connects_with_is_what_was_read() {
    let url: PostgresUrl = "postgres://m%2B:se:c%20ret@[::1]:5433/a%2Fb?sslmode=allow".parse().expect("a URL");
    let options = url.options().expect("usable");
    assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("::1", 5433, "m+"));
    assert_eq!((options.get_database(), options.get_application_name()), (Some("a/b"), Some("meshwork")));
    assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Prefer));
    assert_eq!(
        url.text(),
        "postgres://?dbname=a%2Fb&host=%3A%3A1&password=se%3Ac%20ret&port=5433&sslmode=allow&user=m%2B"
    );
    assert_eq!(url.text().parse(), Ok(url.clone()), "what is written is read as it was");
    assert_eq!(url.with_database("ü").database(), Some("ü"));

    let no_database: PostgresUrl = "postgres://me@db?application_name=x".parse().expect("a URL");
    let options = no_database.options().expect("usable");
    assert_eq!((options.get_database(), options.get_application_name()), (Some("me"), Some("x")));
    let socket: PostgresUrl = "postgres:///shop?host=/run/postgresql".parse().expect("a URL");
    assert_eq!(socket.options().expect("usable").get_socket(), Some(&"/run/postgresql".into()));
}

#[test]
fn options_are_the_settings_of_a_session_and_the_time_to_connect_is_bounded() {
    let url = |parameter: &str| format!("postgres://db?{parameter}").parse::<PostgresUrl>().expect("a URL");
    let settings = url(r"options=-c%20a%3D1%20-cb.c%3Dx\%20y%20%20--d-e%3D").settings().expect("settings");
    let expected = [("a", "1"), ("b.c", "x y"), ("d_e", "")];
    assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for (seconds, expected) in [("1", 1), ("7", 7), ("0", 60), ("-1", 60), ("3600", 60)] {
        let timeout = url(&format!("connect_timeout={seconds}")).connect_timeout();
        assert_eq!(timeout, Ok(Duration::from_secs(expected)), "{seconds}");
    }
}
