//! A service as its own process: what its flags start, and in which order.
//!
//! Flags come before the database: one that cannot be used leaves no file behind.

use std::time::Duration;

use meshwork::{Mesh, server};
use meshwork_events::{EventStore, OpenError, store, writer::Decider};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{Failure, InstanceArgs, Listener, StoreArgs, say_if_slow};

/// How long a service that starts waits for a database that fails meanwhile: one that is restarted, and recovers.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Runs one instance of `service` to its end, and closes what was opened for it. If `shutdown` is cancelled before all is open,
/// that is the end.
///
/// # Errors
/// A flag that cannot be used, or whatever `run` ends with.
pub async fn serve<D: Decider>(
    service: &str,
    instance: &InstanceArgs,
    store: &StoreArgs,
    shutdown: &CancellationToken,
    open: impl AsyncFn(&str) -> Result<EventStore<D>, OpenError>,
    run: impl AsyncFnOnce(server::Config, Mesh, EventStore<D>, Listener) -> Result<(), server::Error>,
) -> Result<(), Failure> {
    let starting = async {
        let incoming = instance.bind().await?;
        let server = instance.config(service, &incoming)?;
        let mesh = instance.mesh(service)?;
        let url = &store.database_url;
        // Boxed: what opens a database is large.
        let opening = Box::pin(say_if_slow(store::shown(url), open_patiently(url, open)));
        Ok((incoming, server, mesh, opening.await.map_err(|error| unusable(url, &error))?))
    };
    let Some(started) = shutdown.run_until_cancelled(starting).await else { return Ok(()) };
    let (incoming, server, mesh, events) = started?;
    let served = run(server, mesh.clone(), events.clone(), incoming.say_ready(service)).await;
    mesh.close().await;
    events.close().await;
    served.map_err(Failure::run)
}

/// A database that cannot be opened, as the error of its flag; shows no more of `url` than [`store::shown`].
fn unusable(url: &str, error: &OpenError) -> Failure {
    if is_file_name(url) {
        let hint = format!("must be sqlite://FILE or postgres://HOST/DATABASE: for this file give sqlite://{url}");
        return Failure::flag("--database-url", url, hint);
    }
    Failure::flag("--database-url", store::shown(url), error.problem())
}

/// Whether this is the name of a file and no URL; a password would not stand in it.
fn is_file_name(url: &str) -> bool {
    let endings = [".db", ".sqlite", ".sqlite3"];
    !url.contains([':', '@', '?']) && endings.iter().any(|ending| url.ends_with(ending))
}

/// Opens the database. If it is lost while it is being opened, waits for it, as a running service would.
async fn open_patiently<T>(url: &str, open: impl AsyncFn(&str) -> Result<T, OpenError>) -> Result<T, OpenError> {
    let end = Instant::now() + OPEN_PATIENCE;
    loop {
        match open(url).await {
            Err(error) if error.is_passing() && Instant::now() < end => {
                tracing::warn!(%error, "the database was lost while it was being opened; retrying");
                sleep(OPEN_AGAIN_AFTER).await;
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use meshwork_events::store::StoreError;

    use super::*;

    fn unavailable() -> OpenError {
        StoreError::Unavailable("it restarts".into()).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_restarts_while_a_service_starts_is_waited_for() {
        let attempts = Cell::new(0);
        let opened = open_patiently("postgres://", async |_| {
            attempts.set(attempts.get() + 1);
            if attempts.get() < 3 { Err(unavailable()) } else { Ok("open") }
        });
        assert_eq!(opened.await.expect("opened"), "open");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_stays_away_is_given_up_and_one_that_cannot_be_used_at_once() {
        let begin = Instant::now();
        let opened: Result<(), _> = open_patiently("postgres://", async |_| Err(unavailable())).await;
        assert!(opened.is_err() && begin.elapsed() >= OPEN_PATIENCE);

        let begin = Instant::now();
        let refused = || StoreError::InUse { path: "order.db".into() };
        let opened: Result<(), OpenError> = open_patiently("sqlite://order.db", async |_| Err(refused().into())).await;
        assert!(opened.is_err() && begin.elapsed() < OPEN_AGAIN_AFTER);
    }

    #[tokio::test]
    async fn a_file_without_a_scheme_gets_a_hint() {
        for url in ["customer.db", "/var/lib/order.sqlite3"] {
            let refused = store::open(url).await.err().expect(url);
            let said = unusable(url, &refused.into()).to_string();
            assert!(said.ends_with(&format!("for this file give sqlite://{url}")), "{said}");
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_the_flags_error_and_shows_no_more_than_its_scheme() {
        for (url, shown) in [
            ("mysql://me:secret@host/db", "mysql://..."),
            ("mysql://host/db?user=u&password=secret", "mysql://..."),
            ("postgres:u:secret@host", "postgres://..."),
            ("mysql://u:p@secret@host/db", "mysql://..."),
            ("mysql://host/db#secret", "mysql://..."),
            ("u@secret:5432", "..."),
            ("secret", "..."),
        ] {
            let refused = store::open(url).await.err().expect(url);
            let said = unusable(url, &refused.into()).to_string();
            let expected = format!(
                "--database-url {shown}: database URL {shown:?} is not supported: use sqlite://FILE or postgres://HOST/DATABASE"
            );
            assert_eq!(said, expected, "{url}");
        }
    }
}
