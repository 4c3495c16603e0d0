//! The log's own tasks: they check its store, and read what other processes commit.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use meshwork::{cause::with_causes, health::Conditioner};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::log::Log;
use crate::store::StoreError;

/// How often the store's health is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a store that does not answer may yet be called well: a restart takes that long, and calls wait for it.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// After a read that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Checks the store's health periodically. Owned by [`Log`], which aborts it.
pub(super) async fn watch_over(log: Weak<Log>, conditioner: Conditioner, behind: Arc<Notify>) {
    let mut failing_since: Option<Instant> = None;
    loop {
        sleep(CHECK_INTERVAL).await;
        let Some(log) = log.upgrade() else { return };
        let begun = Instant::now();
        let checked = timeout(CHECK_LIMIT, log.check()).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!("no answer within {} s", CHECK_LIMIT.as_secs()).into()))
        });
        let condition = match checked {
            Ok(()) => {
                failing_since = None;
                Ok(())
            }
            // A restart of the server, which its callers wait out.
            Err(StoreError::Unavailable(_) | StoreError::Conflict(_))
                if failing_since.get_or_insert(begun).elapsed() < CHECK_PATIENCE =>
            {
                continue;
            }
            Err(error) => Err(with_causes(&error)),
        };
        let problem = condition.clone().err();
        if conditioner.set(condition) {
            match problem {
                Some(problem) => tracing::error!(problem, "the store is unhealthy: this instance is NOT_SERVING"),
                None => {
                    tracing::info!("the store is healthy again");
                    // A commit whose answer was lost has not been announced.
                    behind.notify_one();
                }
            }
        }
    }
}

/// Reads what others commit: other processes, whose word it waits for, and writers of this one that have published in
/// another order than they committed. Owned by [`Log`], which aborts it; at rest it holds nothing open.
pub(super) async fn catch_up(log: Weak<Log>, mut notified: Option<watch::Receiver<()>>, behind: Arc<Notify>) {
    loop {
        let told = async {
            match &mut notified {
                // An error says that the database is closed: so is the log.
                Some(notified) => notified.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        // Both arms are cancel-safe.
        tokio::select! {
            () = behind.notified() => {}
            told = told => if !told { return },
        }
        let Some(log) = log.upgrade() else { return };
        let read = log.catch_up().await;
        // The store's health check reports an unreachable store.
        *log.unread() = read.as_ref().err().filter(|error| !error.is_about_the_store()).map(|error| with_causes(error));
        if let Err(error) = read {
            tracing::debug!(%error, "the log could not be read; retrying");
            let ended = log.check_not_set_back().is_err();
            drop(log);
            if ended {
                return;
            }
            sleep(RETRY_PAUSE).await;
            behind.notify_one();
        }
    }
}
