//! Turns a URL into connect options, and makes the database if it is missing.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep, timeout};

use super::error::{has_code, is_starting};
use crate::store::{StoreError, shown};

/// A statement that takes longer is wrong, or the server is beyond its capacity.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A lock is held for a commit, or by a process that stands still, which the next limit ends first.
const LOCK_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two statements of a transaction lie microseconds of deciding. A process that was stopped, or cut off, gives its
/// locks back after this, and finds its connection ended when it wakes: it cannot commit.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The server notices a client that is gone after some 25 s: its first probe, and the probes that go unanswered.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// One attempt to connect: a handshake over a slow network, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that starts together with its clients, as in a compose file, gets this long to listen.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// One that says that it starts gets this long: after a crash it reads its log and syncs its files first.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The database that every server has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// Reads `url`, and makes its database if it is missing.
pub(super) async fn open(url: &str) -> Result<PgConnectOptions, StoreError> {
    let failed =
        |path: String| move |source: sqlx::Error| StoreError::Open { path, source: std::io::Error::other(source) };
    let options: PgConnectOptions = url.parse().map_err(failed(shown(url)))?;
    // A password with an unescaped `/` is read as the end of the host: what looks like a database is then its rest.
    let database = options.get_database().filter(|name| !name.contains(['@', ':', '/'])).map(str::to_owned);
    let Some(database) = database else { return Err(StoreError::UnsupportedUrl { url: shown(url) }) };
    let path = format!("postgres://{}:{}/{database}", options.get_host(), options.get_port());
    let options = with_timeouts(options);
    reach(&options, &database).await.map_err(failed(path))?;
    Ok(options)
}

fn with_timeouts(options: PgConnectOptions) -> PgConnectOptions {
    let ms = |limit: Duration| limit.as_millis().to_string();
    let named = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("meshwork"),
    };
    named.options(KEEPALIVES).options([
        ("statement_timeout", ms(STATEMENT_TIMEOUT)),
        ("lock_timeout", ms(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", ms(IDLE_IN_TRANSACTION_TIMEOUT)),
        // Not that a table is there already.
        ("client_min_messages", "warning".to_owned()),
    ])
}

/// Connects once, so that what is wrong is said now.
async fn reach(options: &PgConnectOptions, database: &str) -> Result<(), sqlx::Error> {
    let begin = Instant::now();
    loop {
        let error = match connect(options).await {
            Ok(connection) => return connection.close().await,
            Err(error) if has_code(&error, &["3D000"]) => match create(options, database).await {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Two that make databases at once disturb each other: 55006, the template is in use.
        let worth_trying = is_starting(&error) || has_code(&error, &["55006"]);
        let says_so = has_code(&error, &["57P03"]);
        let patience = if says_so { RECOVERY_PATIENCE } else { OPEN_PATIENCE };
        if !worth_trying || begin.elapsed() > patience {
            return Err(error);
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn create(options: &PgConnectOptions, database: &str) -> Result<(), sqlx::Error> {
    let mut connection = connect(&options.clone().database(MAINTENANCE_DATABASE)).await?;
    let create = format!("create database \"{}\"", database.replace('"', "\"\""));
    let created = connection.execute(AssertSqlSafe(create)).await;
    connection.close().await?;
    match created {
        // Another instance was faster: it has it, or is about to.
        Err(error) if has_code(&error, &["42P04", "23505"]) => Ok(()),
        created => created.map(drop),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let connecting = PgConnection::connect_with(options);
    timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
