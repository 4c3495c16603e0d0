//! Reads the URL of a PostgreSQL database, as libpq does (PostgreSQL's manual, "Connection URIs").
//!
//! sqlx reads URLs with a parser for the web's: it takes no address in brackets (sqlx #2781), no character in a password that the
//! web forbids, and only warns of a parameter that it does not know. So the URL is read here, once and for every program, into
//! libpq's parameters, and each of them is honoured, or refused by its name. No error shows a value: it may be a piece of a
//! password that was meant to be percent-encoded.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;

/// One attempt to connect: a handshake over a slow network, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that `connect_timeout` may ask for, which is also what 0 means.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A longer parameter is not named in an error.
const MAX_NAMED: usize = 40;

/// libpq's parameters that sqlx knows under the same name.
const PASSED_ON: [&str; 11] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
];
/// Those that are read here.
const READ_HERE: [&str; 3] = ["options", "connect_timeout", "fallback_application_name"];
/// Those that are as these values say anyway.
const AS_IT_IS: [(&str, &[&str]); 7] = [
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("load_balance_hosts", &["disable"]),
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("channel_binding", &["prefer", "disable"]),
    ("gssencmode", &["prefer", "disable"]),
    ("sslnegotiation", &["postgres"]),
    ("sslcompression", &["0"]),
];
/// The environment's variables for parameters that a URL leaves out (PostgreSQL's manual, "Environment Variables"). Those that
/// only shape what psql prints are not among them.
const VARIABLES: [(&str, &str); 27] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGSERVICE", "service"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The URL of a PostgreSQL database: libpq's parameters, of which each can be honoured.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(BTreeMap<String, String>);

/// What is wrong with the URL of a PostgreSQL database; shows no value of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPostgresUrl(String);

fn invalid<T>(problem: impl Into<String>) -> Result<T, InvalidPostgresUrl> {
    Err(InvalidPostgresUrl(problem.into()))
}

impl std::fmt::Debug for PostgresUrl {
    /// A password may stand in it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("postgres://...")
    }
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let scheme = ["postgres://", "postgresql://"].into_iter().find(|scheme| text.starts_with(scheme));
        let Some(scheme) = scheme else {
            return invalid("it must begin with postgres:// or postgresql://");
        };
        let mut given = BTreeMap::new();
        let rest = user(&text[scheme.len()..], &mut given)?;
        let rest = host(rest, &mut given)?;
        let (path, parameters) = rest.split_once('?').map_or((rest, None), |(path, rest)| (path, Some(rest)));
        if let Some(database) = path.strip_prefix('/').filter(|database| !database.is_empty()) {
            if database.contains(['@', '/', ':']) {
                return invalid(
                    "the database's name must not contain @, / or :; in a name or password write them as %40, %2F and %3A",
                );
            }
            given.insert("dbname".to_owned(), decode(database)?);
        }
        for parameter in parameters.into_iter().flat_map(|all| all.split('&')).filter(|one| !one.is_empty()) {
            let (name, value) = read_parameter(parameter)?;
            given.insert(name, value);
        }
        let url = Self(given);
        url.check()?;
        Ok(url)
    }
}

impl PostgresUrl {
    /// The database, if the URL names one.
    pub fn database(&self) -> Option<&str> {
        self.get("dbname")
    }

    /// The URL of another database of the same server, for the same user.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut given = self.0.clone();
        given.insert("dbname".to_owned(), name.to_owned());
        Self(given)
    }

    /// The URL as text, with its password.
    pub fn text(&self) -> String {
        text(self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The URL with what it leaves out taken from libpq's environment variables. An empty one is unset, and a line break at the end
    /// of one, as files of secrets have it, is no part of it.
    ///
    /// # Errors
    /// One of them cannot be honoured; the error names it.
    pub(super) fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidPostgresUrl> {
        for (variable, name, value) in VARIABLES.iter().filter_map(|(of, name)| Some((of, name, variable(of)?))) {
            let value = value.trim_end_matches(['\r', '\n']);
            if value.is_empty() || self.0.contains_key(*name) {
                continue;
            }
            self.0.insert((*name).to_owned(), value.to_owned());
            self.check().map_err(|InvalidPostgresUrl(problem)| {
                InvalidPostgresUrl(format!("the environment variable {variable} does not fit: {problem}"))
            })?;
        }
        // psql takes the name that the operating system has for its user, which containers mostly lack.
        let user = || ["USER", "LOGNAME"].into_iter().find_map(|name| variable(name).filter(|user| !user.is_empty()));
        match self.get("user").map(str::to_owned).or_else(user) {
            Some(user) => self.0.insert("user".to_owned(), user),
            None => {
                return invalid("it names no user: postgres://USER@HOST/DATABASE, or the environment variable PGUSER");
            }
        };
        Ok(self)
    }

    /// What sqlx connects with. What is left out is as the password file says.
    pub(super) fn options(&self) -> Result<PgConnectOptions, InvalidPostgresUrl> {
        let known = self.0.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
        let passed_on = known.filter_map(|(name, value)| match (name.as_str(), value.as_str()) {
            // libpq's first try is without TLS and its second with it, sqlx's only one without.
            ("sslmode", "allow") => Some(("sslmode", "prefer")),
            // sqlx checks against the system's authorities if no file is given.
            ("sslrootcert", "system") => None,
            (name, value) => Some((name, value)),
        });
        let mut passed_on: Vec<_> = passed_on.collect();
        if self.get("sslrootcert") == Some("system") && self.get("sslmode").is_none() {
            passed_on.push(("sslmode", "verify-full"));
        }
        let read = text(passed_on).parse::<PgConnectOptions>();
        let Ok(options) = read else { return invalid("it cannot be used to connect") };
        // PgBouncer refuses it, and without floating-point numbers it is not needed.
        let options = options.extra_float_digits(None);
        let options = match (options.get_application_name(), self.get("fallback_application_name")) {
            (Some(_), _) => options,
            (None, Some(name)) => options.application_name(name),
            (None, None) => options.application_name("meshwork"),
        };
        let database = options.get_database().unwrap_or(options.get_username()).to_owned();
        Ok(options.database(&database))
    }

    /// The session's settings that `options` asks for.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>, InvalidPostgresUrl> {
        self.get("options").map_or(Ok(Vec::new()), settings)
    }

    /// How long one attempt to connect may take.
    pub(super) fn connect_timeout(&self) -> Result<Duration, InvalidPostgresUrl> {
        let Some(seconds) = self.get("connect_timeout") else { return Ok(CONNECT_TIMEOUT) };
        match seconds.trim().parse::<i32>() {
            Ok(seconds) if seconds <= 0 => Ok(MAX_CONNECT_TIMEOUT),
            Ok(seconds) => Ok(Duration::from_secs(u64::from(seconds.unsigned_abs())).min(MAX_CONNECT_TIMEOUT)),
            Err(_) => invalid("connect_timeout is not a number of seconds"),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether each parameter can be honoured.
    fn check(&self) -> Result<(), InvalidPostgresUrl> {
        if ["host", "hostaddr", "port"].iter().any(|name| self.get(name).is_some_and(|value| value.contains(','))) {
            return invalid("several hosts are not supported: give one name or address, which leads to the primary");
        }
        if self.get("port").is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return invalid("the port must be 1-65535; if the password has a / or :, write it as %2F or %3A");
        }
        if self.get("hostaddr").is_some_and(|address| address.parse::<std::net::IpAddr>().is_err()) {
            return invalid("hostaddr is not an IP address");
        }
        let ssl_mode = self.get("sslmode");
        if ssl_mode.is_some_and(|mode| !SSL_MODES.contains(&mode)) {
            return invalid(format!("sslmode must be one of {}", SSL_MODES.join(", ")));
        }
        let system = self.get("sslrootcert") == Some("system");
        if system && ssl_mode.is_some_and(|mode| mode != "verify-full") {
            return invalid("sslrootcert=system needs sslmode=verify-full");
        }
        let checks_name = ssl_mode == Some("verify-full") || system;
        if checks_name && self.get("hostaddr").is_some() && self.get("host").is_some() {
            return invalid("hostaddr beside host is not supported with sslmode=verify-full: give the host alone");
        }
        self.connect_timeout()?;
        self.settings()?;
        for (name, value) in &self.0 {
            let name = name.as_str();
            match AS_IT_IS.iter().find(|(known, _)| *known == name) {
                Some((_, accepted)) if accepted.contains(&value.as_str()) => {}
                Some((_, accepted)) => {
                    return invalid(format!("{name} is supported with the value {} only", accepted.join(" or ")));
                }
                None if PASSED_ON.contains(&name) || READ_HERE.contains(&name) => {}
                None => return invalid(format!("the parameter {name} is not supported")),
            }
        }
        Ok(())
    }
}

/// Reads `USER:PASSWORD@`, if it is there; returns what follows. As libpq does, up to the first `@` before a `/`.
fn user<'a>(rest: &'a str, given: &mut BTreeMap<String, String>) -> Result<&'a str, InvalidPostgresUrl> {
    let Some(end) = rest.find(['@', '/']).filter(|end| rest[*end..].starts_with('@')) else { return Ok(rest) };
    let (user, password) =
        rest[..end].split_once(':').map_or((&rest[..end], None), |(user, password)| (user, Some(password)));
    for (name, value) in [("user", Some(user)), ("password", password)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            given.insert(name.to_owned(), decode(value)?);
        }
    }
    Ok(&rest[end + 1..])
}

/// Reads `HOST:PORT`, of which both may be missing; returns what follows.
fn host<'a>(rest: &'a str, given: &mut BTreeMap<String, String>) -> Result<&'a str, InvalidPostgresUrl> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        return invalid("there is more than one @ before the host; one of a password must be percent-encoded (%40)");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(address) => {
            let Some((address, port)) = address.split_once(']') else {
                return invalid("the [ of an IPv6 address is not closed");
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() || !(port.is_empty() || port.starts_with(':')) {
                return invalid("what is in brackets must be an IPv6 address, with a : before the port");
            }
            (address, port.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    for (name, value) in [("host", Some(host)), ("port", port)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            given.insert(name.to_owned(), decode(value)?);
        }
    }
    Ok(rest)
}

/// Reads `NAME=VALUE`.
fn read_parameter(parameter: &str) -> Result<(String, String), InvalidPostgresUrl> {
    let is_name = |name: &str| {
        name.len() <= MAX_NAMED && name.chars().all(|c| c.is_ascii_alphanumeric() || ['_', '-'].contains(&c))
    };
    let Some((name, value)) = parameter.split_once('=').filter(|(name, value)| is_name(name) && !value.contains('='))
    else {
        return invalid("what follows the ? must be NAME=VALUE, separated by &; a = of a value is %3D");
    };
    let is_known = PASSED_ON.contains(&name) || READ_HERE.contains(&name);
    if !is_known && value.contains('@') {
        // Rather a password with a ?.
        return invalid("a parameter is not supported; a ? or = of a password must be percent-encoded (%3F, %3D)");
    }
    match (name, value) {
        // As JDBC says it, which libpq takes as well.
        ("ssl", "true") => Ok(("sslmode".to_owned(), "require".to_owned())),
        (name, value) => Ok((name.to_owned(), decode(value)?)),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, InvalidPostgresUrl> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) if high + low > 0 => (high * 16 + low) as u8,
                    _ => return invalid("a % is not followed by two hexadecimal digits; the % itself is %25"),
                }
            }
            byte => byte,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).or_else(|_| invalid("what is percent-encoded is not UTF-8"))
}

fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A URL of parameters alone, which every reader understands in the same way.
fn text<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let parameters: Vec<_> = parameters.into_iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    format!("postgres://?{}", parameters.join("&"))
}

/// Reads a server's command line: `-c NAME=VALUE` and `--NAME=VALUE`, separated by blanks; a backslash stands before a blank that
/// belongs to a value.
fn settings(line: &str) -> Result<Vec<(String, String)>, InvalidPostgresUrl> {
    let mut words = words(line).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next(),
            (Some(setting), _) | (None, Some(setting)) => Some(setting.to_owned()),
            (None, None) => None,
        };
        match setting.as_deref().and_then(|setting| setting.split_once('=')) {
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => return invalid("options is supported with -c NAME=VALUE and --NAME=VALUE only"),
        }
    }
    Ok(settings)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            blank if blank.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            character => word.push(character),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests;
