//! Reaches a database for the first time: makes it if it is missing, and checks in one place what is relied on.

use std::{
    io,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use meshwork::{cause::with_causes, dial};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    error::{has_code, is_starting},
    url::PostgresUrl,
};
use crate::store::{StoreError, shown};

/// A statement that takes longer is wrong, or the server is beyond its capacity.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A lock is held for a commit, or by a stopped process, which the next limit ends first.
const LOCK_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two statements of a transaction lie microseconds of deciding. A process that was stopped, or cut off, gives its
/// locks back after this, and finds its connection ended when it wakes: it cannot commit.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The server notices a client that is gone after some 25 s: its first probe, and the probes that go unanswered.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// A server that starts together with its clients, as in a compose file, gets this long to listen.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// A server that reports that it is starting gets this long: after a crash it reads its log and syncs its files first.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The database that every server has.
const MAINTENANCE_DATABASE: &str = "postgres";
/// The oldest version that the statements were tried on; none needs a later one. As the server counts.
const MIN_SERVER_VERSION: i32 = 12_00_00;
/// How often two sessions are compared: between their statements, others may take what a proxy has.
const COMPARISONS: usize = 3;

/// How the sessions of a database are made.
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    /// Set in each session once it is connected, because PgBouncer refuses them in the startup message.
    pub(super) settings: Vec<(String, String)>,
    /// For one attempt to connect.
    pub(super) connect_timeout: Duration,
    /// An attempt by the host's name has failed.
    pub(super) name_failed: AtomicBool,
}

/// Reads `url`, makes its database if it is missing, and checks it.
pub(super) async fn open(url: &str) -> Result<Target, StoreError> {
    let invalid = |error| StoreError::InvalidUrl { url: shown(url), problem: error };
    let target = read(url).map_err(|error| invalid(error.to_string()))?;
    let options = &target.options;
    let database = options.get_database().unwrap_or(options.get_username()).to_owned();
    let path = match options.get_socket() {
        Some(folder) => format!("postgres://{}/{database}", folder.display()),
        None if options.get_host().contains(':') => {
            format!("postgres://[{}]:{}/{database}", options.get_host(), options.get_port())
        }
        None => format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()),
    };
    let failed = |error| StoreError::Open { path: path.clone(), source: io::Error::other(said(&error)) };
    let unsuitable = |problem| StoreError::Unsuitable { path: path.clone(), problem };
    let mut session = reach(&target, &database).await.map_err(failed)?;
    let suits = suits(&target, &mut session, &database).await.map_err(failed)?;
    session.close().await.map_err(failed)?;
    suits.map(|()| target).map_err(unsuitable)
}

fn read(url: &str) -> Result<Target, super::InvalidPostgresUrl> {
    let url = url.parse::<PostgresUrl>()?.with_environment(|variable| std::env::var(variable).ok())?;
    let ms = |limit: Duration| limit.as_millis().to_string();
    let timeouts = [
        ("statement_timeout", ms(STATEMENT_TIMEOUT)),
        ("lock_timeout", ms(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", ms(IDLE_IN_TRANSACTION_TIMEOUT)),
        // Not that a table is there already.
        ("client_min_messages", "warning".to_owned()),
    ];
    let keepalives = KEEPALIVES.map(|(name, value)| (name, value.to_owned()));
    let ours = keepalives.into_iter().chain(timeouts).map(|(name, value)| (name.to_owned(), value));
    let settings = ours.chain(url.settings()?).collect();
    let (options, connect_timeout) = (url.options()?, url.connect_timeout()?);
    Ok(Target { options, settings, connect_timeout, name_failed: AtomicBool::new(false) })
}

impl Target {
    /// Makes the settings of a session that was just connected.
    pub(super) async fn set_up(&self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut set = sqlx::QueryBuilder::new("select ");
        let mut separated = set.separated(", ");
        for (name, value) in &self.settings {
            separated.push("set_config(").push_bind_unseparated(name).push_unseparated(", ");
            separated.push_bind_unseparated(value).push_unseparated(", false)");
        }
        session.execute(set.build().persistent(false)).await.map(drop)
    }

    /// What to connect with now: the name, and once that has failed, of several addresses the one that answers first. sqlx tries them
    /// one after another within one limit, which the first uses up if it drops packets (materialize #23271). The name comes first
    /// because some servers are told apart by it in the TLS handshake.
    pub(super) async fn route(&self) -> io::Result<PgConnectOptions> {
        let options = self.options.clone();
        let name_failed = self.name_failed.load(Ordering::Relaxed);
        let Some(name) = raced_name(&options).filter(|_| name_failed) else { return Ok(options) };
        let end = Instant::now() + self.connect_timeout;
        let addresses = dial::look_up(&name, end).await?;
        if addresses.len() < 2 {
            return Ok(options);
        }
        let answered = dial::first(addresses, end).await?.peer_addr()?;
        Ok(options.host(&answered.ip().to_string()))
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = self.route().await?.database(database);
        let connecting = PgConnection::connect_with(&options);
        let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.connect_timeout));
        let connected = timeout(self.connect_timeout, connecting).await.unwrap_or_else(|_| Err(silent().into()));
        if matches!(connected, Err(sqlx::Error::Io(_))) {
            self.name_failed.store(true, Ordering::Relaxed);
        }
        connected
    }
}

/// The HOST:PORT whose addresses may race. With verify-full the certificate is compared with the host's name, which therefore stays.
fn raced_name(options: &PgConnectOptions) -> Option<String> {
    let host = options.get_host();
    let is_socket = options.get_socket().is_some() || host.starts_with('/');
    let is_fixed =
        is_socket || host.parse::<IpAddr>().is_ok() || matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    (!is_fixed).then(|| format!("{host}:{}", options.get_port()))
}

/// An error with its causes, without the line of sqlx that some end with.
fn said(error: &sqlx::Error) -> String {
    let text = with_causes(error);
    match text.rsplit_once(" (sqlx_") {
        Some((said, line)) if line.ends_with(')') => said.to_owned(),
        _ => text,
    }
}

/// Whether the server and the database are what is relied on, or why not.
async fn suits(target: &Target, session: &mut PgConnection, database: &str) -> Result<Result<(), String>, sqlx::Error> {
    target.set_up(session).await?;
    let row = session
        .fetch_one("select current_setting('server_version_num')::int, current_setting('server_encoding')")
        .await?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < MIN_SERVER_VERSION {
        return Ok(Err(format!("is on a server of version {}; version 12 or later is required", version / 10_000)));
    }
    if encoding != "UTF8" {
        return Ok(Err(format!(
            "has the encoding {encoding}, which cannot store every Unicode text; UTF8 is needed: make a new one (create database \
             NAME encoding 'UTF8' lc_collate 'C' lc_ctype 'C' template template0) and bring over what is in {database:?} with \
             pg_dump"
        )));
    }
    shares_no_session(target, session, database).await
}

/// A proxy that assigns sessions of the server by transaction mixes up the settings and notifications of its clients.
/// It is detected by two clients of the same session.
async fn shares_no_session(
    target: &Target,
    session: &mut PgConnection,
    database: &str,
) -> Result<Result<(), String>, sqlx::Error> {
    const OF_SERVER: &str = "select pg_backend_pid()";
    let mut other = target.connect(database).await?;
    for _ in 0..COMPARISONS {
        let (one, two) = (session.fetch_one(OF_SERVER).await?, other.fetch_one(OF_SERVER).await?);
        if one.try_get::<i32, _>(0)? == two.try_get::<i32, _>(0)? {
            return Ok(Err("is behind a proxy that pools connections per transaction or statement; Meshwork needs session pooling \
                           (PgBouncer: pool_mode = session)"
                .to_owned()));
        }
    }
    other.close().await?;
    Ok(Ok(()))
}

/// Connects once, so that a problem is reported now.
async fn reach(target: &Target, database: &str) -> Result<PgConnection, sqlx::Error> {
    let begin = Instant::now();
    let mut made = false;
    loop {
        let error = match target.connect(database).await {
            Ok(session) => return Ok(session),
            Err(error) if is_missing(&error) && !made => match create(target, database).await {
                Ok(()) => {
                    made = true;
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Two that make databases at once disturb each other: 55006, the template is in use.
        let (says_so, remembered) = (has_code(&error, &["57P03"]), made && is_missing(&error));
        let worth_trying = is_starting(&error) || remembered || has_code(&error, &["55006"]);
        let patience = if says_so || remembered { RECOVERY_PATIENCE } else { OPEN_PATIENCE };
        if !worth_trying || begin.elapsed() > patience {
            return Err(error);
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Also as a PgBouncer says it, which then remembers it for 15 s.
fn is_missing(error: &sqlx::Error) -> bool {
    let says_so = |error: &dyn sqlx::error::DatabaseError| {
        error.message().starts_with("database ") && error.message().ends_with(" does not exist")
    };
    has_code(error, &["3D000"]) || has_code(error, &["08P01"]) && error.as_database_error().is_some_and(says_so)
}

/// Makes it in UTF8, whatever encoding the server's own databases have: with the C locale, every server can. That
/// locale's order of texts, on which nothing here relies, is also the only one that no system update changes under an
/// index.
async fn create(target: &Target, database: &str) -> Result<(), sqlx::Error> {
    let mut connection = target.connect(MAINTENANCE_DATABASE).await?;
    let name = database.replace('"', "\"\"");
    let create = format!("create database \"{name}\" encoding 'UTF8' lc_collate 'C' lc_ctype 'C' template template0");
    let created = connection.execute(AssertSqlSafe(create)).await;
    connection.close().await?;
    match created {
        // Another instance was faster: it has it, or is about to.
        Err(error) if has_code(&error, &["42P04", "23505"]) => Ok(()),
        created => created.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_name_race_unless_a_certificate_is_compared_with_it() {
        let raced = |url: &str| raced_name(&url.parse::<PostgresUrl>().expect("a URL").options().expect("usable"));
        assert_eq!(raced("postgres://db/shop?sslmode=require"), Some("db:5432".to_owned()));
        assert_eq!(raced("postgres://db:6432/shop"), Some("db:6432".to_owned()));
        for fixed in ["127.0.0.1", "[::1]", "%2Frun%2Fpostgresql", "db/shop?sslmode=verify-full"] {
            assert_eq!(raced(&format!("postgres://{fixed}")), None, "{fixed}");
        }
    }
}
