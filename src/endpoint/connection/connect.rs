//! Keeps one endpoint connected: the owner of its connections.
//!
//! ```text
//!   connecting ── the server has spoken ──> open ── it leaves, or breaks ──┐
//!     ^   │                                                                │
//!     │   └── failed ──> waiting (backoff, capped and jittered) <──────────┘
//!     └───────────────────┘
//! ```
//!
//! A removed endpoint stops at once, wherever it is, and only finishes the calls that are under way. With several
//! addresses it stays with one for as long as that holds, and goes to the next when it fails: how a list of registries
//! is used.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    connector::Connector,
    drive::{Connection, connect},
};
use crate::{
    backoff::Backoff,
    balance::{Gate, Key},
    cause::with_causes,
    channel::{
        link::Link,
        roster::{Roster, State},
    },
    endpoint::peer::Peer,
};

/// Between attempts: a restarted instance is found again at once, and one that is gone costs two attempts a second at most
/// until the registry says so.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// A connection that lived for less is a failed attempt: a peer that accepts and closes must not be asked without pause.
const STABLE: Duration = Duration::from_secs(1);

/// What is kept connected.
pub(crate) struct Endpoint {
    pub(crate) key: Key,
    /// Where it is; never empty.
    pub(crate) peers: Vec<Peer>,
    pub(crate) gate: Arc<Gate<Link>>,
    pub(crate) connector: Connector,
    pub(crate) roster: Arc<Roster>,
    /// The endpoint was removed.
    pub(crate) removed: CancellationToken,
    /// The connection is of no use, although it stands.
    pub(crate) move_on: Arc<Notify>,
}

impl Endpoint {
    /// Runs until the endpoint is removed and its last call has ended.
    pub(crate) async fn run(self) {
        // Connections that take no more calls and finish those that are under way.
        let mut finishing = JoinSet::new();
        let removed = self.removed.clone();
        tokio::select! {
            () = self.keep_connected(&mut finishing) => {}
            () = removed.cancelled() => {}
        }
        self.gate.close();
        while finishing.join_next().await.is_some() {}
    }

    async fn keep_connected(&self, finishing: &mut JoinSet<()>) {
        let mut backoff = BACKOFF;
        let mut peers = self.peers.iter().cycle();
        let mut peer = peers.next().expect("an endpoint has an address");
        loop {
            while finishing.try_join_next().is_some() {}
            match connect(&self.connector, peer).await {
                Ok((link, connection)) => {
                    let since = Instant::now();
                    let ended = self.stay(link, connection, finishing).await;
                    if since.elapsed() >= STABLE {
                        backoff.reset();
                    }
                    tracing::debug!(endpoint = %peer, why = ended, "a connection takes no more calls");
                    self.roster.note(self.key, State::Failed(ended));
                }
                Err(error) => {
                    tracing::debug!(endpoint = %peer, %error, "an endpoint cannot be reached");
                    self.roster.note(self.key, State::Failed(format!("{}: {error}", peer.address())));
                }
            }
            peer = peers.next().expect("a cycle has no end");
            sleep(backoff.next(rand::random())).await;
        }
    }

    /// Lets calls through until the connection takes no more, and says why that is.
    async fn stay(&self, link: Link, connection: Connection, finishing: &mut JoinSet<()>) -> String {
        self.roster.note(self.key, State::Connected(connection.stream_limit()));
        let (ended, end) = tokio::sync::oneshot::channel();
        finishing.spawn(async move {
            let mut connection = connection;
            // Nobody listens any more once the endpoint was removed.
            let _ = ended.send(connection.serve().await);
            connection.finish().await;
        });
        self.gate.open(link);
        let why = tokio::select! {
            end = end => match end {
                Ok(Err(error)) => format!("the connection broke: {}", with_causes(&error)),
                Ok(Ok(())) | Err(_) => "the server closed the connection".to_owned(),
            },
            () = self.move_on.notified() => "the server was silent".to_owned(),
        };
        self.gate.close();
        why
    }
}
