//! Keeps one endpoint connected: the owner of its connections.
//!
//! ```text
//!   connecting ── the server has spoken ──> connected ── it leaves, or breaks ──┐
//!     ^   │                                                                     │
//!     │   └── failed ──> waiting (backoff, capped and jittered) <───────────────┘
//!     └───────────────────┘
//! ```
//!
//! A removed endpoint stops at once, wherever it is, and only finishes the calls that are under way. With several
//! addresses it stays with one for as long as that holds, and goes to the next when it fails: how a list of registries
//! is used.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Connection as _,
    connector::Dialer,
    drive::{ConnectionTask, connect},
    handle::ConnectionHandle,
    keepalive::{Keepalive, is_too_many_pings},
};
use crate::{
    backoff::Backoff,
    cause::with_causes,
    endpoint::{Endpoint, peer::Peer},
    identity::Moment,
};

/// Between attempts: a restarted instance is found again at once, and one that is gone costs two attempts a second at most
/// until the registry says so.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// A connection is replaced after this long, whatever its certificate says: a year, within what clocks can count.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// A connection that lived for less is a failed attempt: a peer that accepts and closes must not be asked without pause.
const STABLE: Duration = Duration::from_secs(1);

/// Keeps an endpoint connected until it is removed.
pub(crate) struct KeepConnected {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Where it is; never empty.
    pub(crate) peers: Vec<Peer>,
    pub(crate) dialer: Dialer,
    /// The endpoint was removed.
    pub(crate) removed: CancellationToken,
    /// The connection is open, but of no use.
    pub(crate) reconnect: Arc<Notify>,
}

impl KeepConnected {
    /// Runs until the endpoint is removed and its last call has ended.
    pub(crate) async fn run(self) {
        // Connections that take no more calls and finish those that are under way.
        let mut finishing = JoinSet::new();
        let removed = self.removed.clone();
        tokio::select! {
            () = self.keep_connected(&mut finishing) => {}
            () = removed.cancelled() => {}
        }
        self.endpoint.disconnected("it was removed".to_owned());
        while finishing.join_next().await.is_some() {}
    }

    async fn keep_connected(&self, finishing: &mut JoinSet<()>) {
        let mut backoff = BACKOFF;
        let mut peers = self.peers.iter().cycle();
        let mut peer = peers.next().expect("an endpoint has an address");
        loop {
            while finishing.try_join_next().is_some() {}
            // A connector may be a user's own code.
            let keepalive = self.endpoint.keepalive();
            let connecting = connect(&self.dialer, peer, self.endpoint.has_identity(), keepalive);
            let why = match AssertUnwindSafe(connecting).catch_unwind().await {
                Ok(Ok((handle, connection))) => {
                    let since = Instant::now();
                    let ended = self.stay(handle, connection, keepalive, finishing).await;
                    if since.elapsed() >= STABLE {
                        backoff.reset();
                    }
                    tracing::debug!(endpoint = %peer, why = ended, "a connection takes no more calls");
                    ended
                }
                Ok(Err(error)) => {
                    tracing::debug!(endpoint = %peer, %error, "an endpoint cannot be reached");
                    format!("{}: {error}", peer.address())
                }
                Err(_) => format!("{}: the connector panicked", peer.address()),
            };
            self.endpoint.disconnected(why);
            peer = peers.next().expect("a cycle has no end");
            sleep(backoff.next(rand::random())).await;
        }
    }

    /// Lets calls through until the connection takes no more, and says why that is.
    async fn stay(
        &self,
        handle: ConnectionHandle,
        connection: ConnectionTask,
        keepalive: Keepalive,
        finishing: &mut JoinSet<()>,
    ) -> String {
        let (ended, end) = tokio::sync::oneshot::channel();
        finishing.spawn(async move {
            let mut connection = connection;
            // The receiver is gone once the endpoint was removed.
            let _ = ended.send(connection.serve().await);
            connection.finish().await;
        });
        let certificate_ends = certificate_ends(handle.certificate_expires(), rand::random());
        self.endpoint.connected(handle);
        tokio::select! {
            end = end => match end {
                Ok(Err(error)) => {
                    if is_too_many_pings(&error) {
                        self.endpoint.complained_about_pings(keepalive);
                    }
                    format!("the connection broke: {}", with_causes(&error))
                }
                Ok(Ok(())) => "the server closed the connection".to_owned(),
                Err(_) => "the connection's task panicked".to_owned(),
            },
            () = self.reconnect.notified() => "the server was silent".to_owned(),
            () = certificate_ends => "the server's certificate is about to expire".to_owned(),
        }
    }
}

/// Ends when a connection should be replaced because the certificate that the server has shown expires: later than Meshwork's servers
/// ask for it, for those that do not.
async fn certificate_ends(expires: Option<SystemTime>, chance: f64) {
    match expires {
        Some(expires) => {
            let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
            Moment::after(left.min(LONGEST).mul_f64(0.85 + chance * 0.1)).passed().await;
        }
        None => std::future::pending().await,
    }
}
