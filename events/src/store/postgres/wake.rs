//! Notifications between processes: NOTIFY and LISTEN on dedicated connections, with polling as the fallback.
//!
//! NOTIFY never runs in a business transaction: it takes a lock of the whole server until its transaction has committed, so
//! that all commits would queue up behind each other (recall.ai, 2025). Here it is a separate transaction, after the commit,
//! and the topics that change while one is under way share the next.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sqlx::{Executor as _, PgPool, postgres::PgListener};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::answer::{ANSWER_TIMEOUT, answered};
use crate::store::{Notifier, Topic};

/// One listens, one notifies.
pub(super) const MAX_CONNECTIONS: u32 = 2;
/// How late a commit of another process is noticed if its notification was lost.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A listener that receives nothing cannot know whether it is cut off: after this it asks the server.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two attempts to listen; polling continues.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The channel of NOTIFY and LISTEN; it is the same in each database.
const CHANNEL: &str = "meshwork";

/// Sends and receives the notifications of `notifier` until it is dropped.
pub(super) async fn run(pool: PgPool, notifier: Arc<Notifier>) {
    // A listener receives its own notifications as well.
    let me = Uuid::new_v4().simple().to_string();
    tokio::join!(notify(&pool, &notifier, &me), listen(&pool, &notifier, &me), poll(&notifier));
}

async fn notify(pool: &PgPool, notifier: &Notifier, me: &str) {
    loop {
        for topic in notifier.pending().await {
            let payload = format!("{me} {}", topic.name());
            let statement = sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(payload);
            if let Err(error) = answered(ANSWER_TIMEOUT, statement.execute(pool)).await {
                tracing::debug!(%error, "other processes were not notified; they poll");
            }
        }
    }
}

async fn listen(pool: &PgPool, notifier: &Notifier, me: &str) {
    loop {
        let Err(error) = listen_until_lost(pool, notifier, me).await;
        tracing::debug!(%error, "not listening to other processes; polling");
        sleep(RETRY_PAUSE).await;
    }
}

async fn listen_until_lost(pool: &PgPool, notifier: &Notifier, me: &str) -> Result<Infallible, sqlx::Error> {
    let mut listener = answered(ANSWER_TIMEOUT, PgListener::connect_with(pool)).await?;
    answered(ANSWER_TIMEOUT, listener.listen(CHANNEL)).await?;
    deliver_all(notifier);
    loop {
        // Cancel-safe: what was read of a message stays in the connection's buffer.
        match timeout(SILENCE_LIMIT, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => match notification.payload().split_once(' ') {
                Some((from, _)) if from == me => {}
                Some((_, name)) => {
                    Topic::ALL
                        .into_iter()
                        .filter(|topic| topic.name() == name)
                        .for_each(|topic| notifier.deliver(topic));
                }
                None => deliver_all(notifier),
            },
            // It was lost, and is there again: notifications may have been missed.
            Ok(Ok(None)) => deliver_all(notifier),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                answered(ANSWER_TIMEOUT, listener.execute("select 1")).await?;
            }
        }
    }
}

fn deliver_all(notifier: &Notifier) {
    Topic::ALL.into_iter().for_each(|topic| notifier.deliver(topic));
}

async fn poll(notifier: &Notifier) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notifier.deliver(Topic::Log);
    }
}
