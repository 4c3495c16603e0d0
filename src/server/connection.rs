//! One connection: it must begin in time, serves calls, and closes on shutdown.
//!
//! ```text
//!   accepted ── TLS, or a first byte ──> begun ── preface and settings ──> serving ── GOAWAY ──> finishing ── last call ends ──> closed
//!       ├─ newer ones need its room ──> cut └─ handshake_time passes ──> cut
//!       └─ handshake_time passes ──> cut
//! ```
//!
//! GOAWAY is sent at the server's shutdown, and well before the first of the two certificates expires: then the client connects
//! anew, both are verified again, and what was not renewed is out. Streams that stay end before that time too.
//!
//! A peer that reads nothing is cut as well: hyper's own keepalive would wait until the peer has read the GOAWAY.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use futures_util::future::OptionFuture;
use hyper::{rt::Executor, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Limits, call::Stack, handshakes::Handshake, layers::Handler, limits::permits, peer::Peer};
use crate::{
    identity::{
        Moment, PeerIdentity, Security, TlsMode,
        handshake::{AcceptError, FAILURES},
    },
    log_limit::{LogLimit, MAX_CAUSES},
};

/// HTTP/2's preface (24 bytes) and the header (9 bytes) of the SETTINGS frame that must follow it (RFC 9113, 3.4).
const GREETING: usize = 24 + 9;

/// Streams that a peer may make us reset, as by opening more than it may, before it is cut (ENHANCE_YOUR_CALM). hyper's default.
const RESETS: usize = 1024;

/// The longest that a connection with identities lives: what was revoked by taking its authority out of the bundle is out after it.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// From GOAWAY to the end of the streams of a connection that ends with its certificate, and from there to its own end: a call has both,
/// which is more than [`Limits::unary_time`] lets it take.
const FINISH_LIMIT: Duration = Duration::from_secs(35);

/// Bytes of a request's header list up to which only the call fails, and not its connection: h2 reads them, and the call is
/// refused if they are above [`Limits::header_list_size`]. h2 itself answers the next few with HTTP 431, and ends the connection
/// from 22 frames of 16 KiB, or 4 times this size, on.
pub(super) const READABLE_HEADERS: u32 = 256 * 1024;

/// Spawns the tasks of calls. They end with their connection, which hyper sees to; the tracker lets the server wait
/// until they are gone.
#[derive(Clone)]
pub(super) struct CallTasks(pub(super) TaskTracker);

impl<F> Executor<F> for CallTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn(call);
    }
}

/// How connections are served.
pub(super) fn http2(limits: &Limits, calls: CallTasks) -> Builder<CallTasks> {
    let mut builder = Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_list_size.max(READABLE_HEADERS))
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.send_buffer)
        // What hyper does by default, stated because it is a bound: a peer beyond it is cut.
        .max_local_error_reset_streams(RESETS)
        // Rapid reset, CVE-2023-44487: calls that were given up before we have looked at them do not count as
        // under way. The limit is the number that may be under way, because all may be given up at once: with h2's
        // default of 20, a busy client that hedges lost a connection each second.
        .max_pending_accept_reset_streams(limits.streams_per_connection as usize)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        // gRPC has no use for it, and it would be rendered and sent with every answer.
        .auto_date_header(false);
    builder
}

/// What the connections of a server have in common.
#[derive(Clone)]
pub(super) struct Serve {
    http2: Builder<CallTasks>,
    pub(super) stack: Arc<Stack>,
    security: Security,
    /// Of connections that have begun.
    places: Arc<Semaphore>,
    lines: Arc<Lines>,
}

/// Limits the lines about connections: peers decide how many there are.
struct Lines {
    refused: LogLimit,
    too_many: LogLimit,
}

impl Serve {
    pub(super) fn new(http2: Builder<CallTasks>, stack: Arc<Stack>, security: Security) -> Self {
        let places = permits(stack.limits.connections);
        let lines = Arc::new(Lines { refused: LogLimit::new(MAX_CAUSES), too_many: LogLimit::new(1) });
        Self { http2, stack, security, places, lines }
    }

    /// Whether one more connection would be one too many. Those that come late find out only after their handshake.
    pub(super) fn is_full(&self) -> bool {
        let is_full = self.places.available_permits() == 0;
        if is_full {
            self.tell_full();
        }
        is_full
    }

    /// A place for a connection with this peer. In permissive mode, a quarter of them is for peers with an identity.
    fn place(&self, peer: &PeerIdentity) -> Option<OwnedSemaphorePermit> {
        let is_anonymous = peer.spiffe_id().is_none();
        let reserved = match self.security.mode() {
            TlsMode::Permissive if is_anonymous => self.stack.limits.connections / 4,
            TlsMode::Plain | TlsMode::Permissive | TlsMode::Strict => 0,
        };
        let is_free = self.places.available_permits() > reserved;
        let place = is_free.then(|| self.places.clone().try_acquire_owned().ok()).flatten();
        if place.is_none() {
            self.tell_full();
        }
        place
    }

    fn tell_full(&self) {
        if let Some(left_out) = self.lines.too_many.pass() {
            let limit = self.stack.limits.connections;
            tracing::warn!(limit, "a connection above the limit was closed{left_out}");
        }
    }

    /// Counts a connection that was refused, and logs it, the first of its kind in a minute.
    fn tell_refused(&self, reason: &'static str, problem: &str) {
        metrics::counter!(FAILURES, "side" => "server", "reason" => reason).increment(1);
        if let Some(left_out) = self.lines.refused.pass_once(reason) {
            tracing::warn!("a connection was refused: {problem}{left_out}");
        }
    }

    /// Serves one connection until it ends.
    pub(super) async fn serve<IO>(self, io: IO, own: Handler, goaway: CancellationToken, handshake: Handshake)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begin_by = Instant::now() + self.stack.limits.handshake_time;
        let (io, peer) = match handshake.run(self.security.accept(io, begin_by)).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(AcceptError::Nothing)) => return tracing::debug!("a connection ended before its handshake"),
            Some(Err(error)) => return self.tell_refused(error.reason(), &error.to_string()),
            None => {
                let problem = format!("it had not begun, and {} newer ones have come", self.stack.limits.handshakes);
                return self.tell_refused("gave_way", &problem);
            }
        };
        let Some(_place) = self.place(&peer.identity) else { return };
        let Self { http2, stack, .. } = self;
        let left = peer.expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
        let life = left.map(|left| Life::new(left, rand::random()).starting_now());
        let peer = Peer { identity: peer.identity, ending: life.map(|_| CancellationToken::new()) };
        let ending = peer.ending.clone().unwrap_or_default();
        let (io, mut greeted) = Watched::new(io, stack.limits.keepalive_interval + stack.limits.keepalive_timeout);
        let answer = service_fn(move |request| {
            let answer = stack.clone().answer(own.clone(), peer.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(http2.serve_connection(TokioIo::new(io), answer));

        tokio::select! {
            biased;
            // An error means that the connection dropped its transport, and then it ends anyway.
            _ = &mut greeted => {}
            end = &mut connection => return ended(end),
            () = sleep_until(begin_by) => return tracing::debug!("a connection was cut: no HTTP/2 preface in time"),
        }
        tokio::select! {
            end = &mut connection => return ended(end),
            () = goaway.cancelled() => connection.as_mut().graceful_shutdown(),
            Some(()) = at(life.map(|life| life.goaway)) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            end = &mut connection => return ended(end),
            Some(()) = at(life.map(|life| life.streams)) => ending.cancel(),
        }
        tokio::select! {
            end = &mut connection => ended(end),
            Some(()) = at(life.map(|life| life.end)) => tracing::debug!("a connection was cut: its certificate expires"),
        }
    }
}

/// Ends at a time; there may be none.
fn at(time: Option<Moment>) -> OptionFuture<impl Future<Output = ()>> {
    time.map(Moment::passed).into()
}

/// How a connection with identities ends, in time since its handshake or, [then](Self::starting_now), at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life<T = Duration> {
    /// The client is asked to connect anew.
    goaway: T,
    /// Streams that are left end.
    streams: T,
    /// It is cut.
    end: T,
}

impl Life {
    /// Of a connection of which the first certificate expires after `left`; `chance`, below 1, keeps connections that began together from
    /// ending together.
    fn new(left: Duration, chance: f64) -> Self {
        let left = left.min(MAX_LIFE);
        let goaway = left.mul_f64(0.6 + chance * 0.2);
        let finish = ((left - goaway) / 3).min(FINISH_LIMIT);
        Self { goaway, streams: goaway + finish, end: goaway + finish * 2 }
    }

    fn starting_now(self) -> Life<Moment> {
        let [goaway, streams, end] = [self.goaway, self.streams, self.end].map(Moment::after);
        Life { goaway, streams, end }
    }
}

/// Connection errors are the peer's business, so they are logged at debug.
fn ended(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Signals once the peer has sent as much as an HTTP/2 client must send first, and fails once the peer stops reading.
struct Watched<IO> {
    io: IO,
    missing: usize,
    greeted: Option<oneshot::Sender<()>>,
    /// How long the peer may leave waiting bytes unread.
    patience: Duration,
    /// When the peer is cut, while it reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<IO> Watched<IO> {
    fn new(io: IO, patience: Duration) -> (Self, oneshot::Receiver<()>) {
        let (done, greeted) = oneshot::channel();
        (Self { io, missing: GREETING, greeted: Some(done), patience, stalled: None }, greeted)
    }

    /// Passes on how a write went, unless it has been waiting for too long.
    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read what is sent to it")))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if self.missing > 0 {
            self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
            if self.missing == 0 {
                // There is no receiver any more once the server has gone on.
                let _ = self.greeted.take().map(|greeted| greeted.send(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, data);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, data);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.written(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(context);
        self.written(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_connection_lives_for_most_of_its_certificates_life_but_neither_longer_nor_more_than_a_day(
            left in 0..48 * 3600 * 1000_u64,
            chance in 0.0..1.0_f64,
        ) {
            let left = Duration::from_millis(left);
            let Life { goaway, streams, end } = Life::new(left, chance);
            let day = Duration::from_secs(24 * 3600);
            prop_assert!(goaway >= left.min(day).mul_f64(0.6) && goaway <= left.min(day).mul_f64(0.8));
            prop_assert!(goaway <= streams && streams <= end && end <= left.min(day));
            prop_assert!(end - streams == streams - goaway && streams - goaway <= Duration::from_secs(35));
            // A call that began with the GOAWAY has all the time that it may take.
            prop_assert!(left.as_secs() < 600 || streams - goaway == Duration::from_secs(35));
        }
    }
}
