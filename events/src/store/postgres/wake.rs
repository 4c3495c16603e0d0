//! Wake-ups between processes: NOTIFY and LISTEN on connections of their own, and a poll behind them.
//!
//! Never in a business transaction: a NOTIFY takes a lock of the whole server until its transaction has committed, so that
//! all commits would queue up behind each other (recall.ai, 2025). Here it is a transaction of its own, after the commit,
//! and what is told while one is under way becomes one more.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sqlx::{Executor as _, PgPool, postgres::PgListener};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::answer::{ANSWER_TIMEOUT, answered};
use crate::store::{Peers, Topic};

/// One that listens, one that tells.
pub(super) const MAX_CONNECTIONS: u32 = 2;
/// How late a commit of another process is noticed if its word was lost.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A listener that hears nothing cannot know whether it is cut off: it asks.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to listen; the poll goes on.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Of each database.
const CHANNEL: &str = "meshwork";

/// Carries the words of `peers` until it is dropped.
pub(super) async fn run(pool: PgPool, peers: Arc<Peers>) {
    // Whoever listens also hears itself.
    let me = Uuid::new_v4().simple().to_string();
    tokio::join!(tell(&pool, &peers, &me), listen(&pool, &peers, &me), poll(&peers));
}

async fn tell(pool: &PgPool, peers: &Peers, me: &str) {
    loop {
        for topic in peers.untold().await {
            let word = format!("{me} {}", topic.name());
            let notify = sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(word);
            if let Err(error) = answered(ANSWER_TIMEOUT, notify.execute(pool)).await {
                tracing::debug!(%error, "other processes were not told; they poll");
            }
        }
    }
}

async fn listen(pool: &PgPool, peers: &Peers, me: &str) {
    loop {
        let Err(error) = listen_until_lost(pool, peers, me).await;
        tracing::debug!(%error, "not listening to other processes; polling");
        sleep(RETRY_PAUSE).await;
    }
}

async fn listen_until_lost(pool: &PgPool, peers: &Peers, me: &str) -> Result<Infallible, sqlx::Error> {
    let mut listener = answered(ANSWER_TIMEOUT, PgListener::connect_with(pool)).await?;
    answered(ANSWER_TIMEOUT, listener.listen(CHANNEL)).await?;
    hear_all(peers);
    loop {
        // Cancel-safe: what was read of a message stays in the connection's buffer.
        match timeout(SILENCE_LIMIT, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => match notification.payload().split_once(' ') {
                Some((from, _)) if from == me => {}
                Some((_, name)) => {
                    Topic::ALL.into_iter().filter(|topic| topic.name() == name).for_each(|topic| peers.hear(topic));
                }
                None => hear_all(peers),
            },
            // It was lost, and is there again: words may have been missed.
            Ok(Ok(None)) => hear_all(peers),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                answered(ANSWER_TIMEOUT, listener.execute("select 1")).await?;
            }
        }
    }
}

fn hear_all(peers: &Peers) {
    Topic::ALL.into_iter().for_each(|topic| peers.hear(topic));
}

async fn poll(peers: &Peers) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        peers.hear(Topic::Log);
    }
}
