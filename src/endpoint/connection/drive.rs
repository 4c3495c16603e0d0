//! One HTTP/2 connection, driven by one task.
//!
//! hyper wants an executor for the parts of a connection and for every call on it. Here they all run inside of the
//! connection's own task: a call costs no task, what ends the connection ends all of it, and nothing is left to join.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, poll_fn},
    stream::{FuturesUnordered, Stream as _},
};
use h2::Reason;
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    DeferredDrop,
    coalesce_wakes::CoalesceWakes,
    connector::Dialer,
    handle::{ConnectionHandle, Shared},
    keepalive::{Keepalive, ended_with},
    stream_limit::StreamLimit,
    write_buffer::{Flusher, WriteBuffer},
};
use crate::{
    cause::with_causes,
    endpoint::peer::Peer,
    request_body::{
        AttemptBody,
        upload::{AttemptStream, JustBegun},
    },
};

/// For connecting and the server's first word. A peer in the same network answers in milliseconds or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A PING unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 window of a stream, in bytes: HTTP/2's own 64 KiB stalls large answers at every round trip.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// HTTP/2 window of a connection, in bytes: what one server can make us buffer.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes of a response's headers or trailers: beyond it only the call fails, until at 22 frames of 16 KiB, or 4 times this size, h2
/// ends the connection.
const MAX_HEADER_LIST_SIZE: u32 = 256 * 1024;

/// Calls cancelled in the last second whose answers are still recognized as late when they come. A client may cancel
/// thousands of calls to a slow server at once, and each hedge cancels one; h2's default of 50 is soon exceeded.
const REMEMBERED_RESETS: usize = 4096;
/// Frames of late answers beyond those, over the life of a connection, before it is cut: a server must not make us send
/// resets without end (RUSTSEC-2024-0003). An answer has three frames, so that hyper's default of 1024 would cut the
/// connections of a client that has only been impatient, with the calls on them.
const LATE_FRAMES: usize = 64 * 1024;

/// Parts of a connection that has little to do: its own two or three, and a call or two.
const FEW: usize = 4;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(io::Error),
    #[error("this port takes TLS connections only, and this process is in plain mode")]
    TlsRequired,
    #[error("the HTTP/2 handshake failed: {}", with_causes(.0))]
    Handshake(hyper::Error),
    #[error("the server closed the connection before it sent anything: it may not speak gRPC")]
    Closed,
    #[error("cannot connect: no answer within {} s", CONNECT_LIMIT.as_secs())]
    Unreachable,
    #[error("connected, but no HTTP/2 server answered within {} s", CONNECT_LIMIT.as_secs())]
    Timeout,
}

impl From<hyper::Error> for ConnectError {
    fn from(error: hyper::Error) -> Self {
        if ended_with(&error, Reason::INADEQUATE_SECURITY).is_some() {
            Self::TlsRequired
        } else {
            Self::Handshake(error)
        }
    }
}

/// Connects, and waits for the server's first word (its SETTINGS): a listener's backlog and a process that is stopped
/// accept connections too.
pub(crate) async fn connect(
    dialer: &Dialer,
    peer: &Peer,
    has_identity: bool,
    keepalive: Keepalive,
) -> Result<(ConnectionHandle, ConnectionTask), ConnectError> {
    let end = Instant::now() + CONNECT_LIMIT;
    let io = timeout_at(end, dialer.connect(peer.address())).await.map_err(|_| ConnectError::Unreachable)??;
    let greeting = async {
        let (io, certificate_expires) = dialer.secure(io, has_identity).await.map_err(ConnectError::Tls)?;
        let (inline, spawned) = mpsc::unbounded_channel();
        let (io, flusher) = WriteBuffer::new(io);
        let just_begun = JustBegun::default();
        let (sender, intake) = http2(Inline { parts: inline, just_begun: just_begun.clone() }, keepalive)
            .handshake(TokioIo::new(io))
            .await?;
        let (ended, stream_limit) = (DeferredDrop::new(), StreamLimit::default());
        let shared = Arc::new(Shared { peer: peer.clone(), certificate_expires, ended, stream_limit, just_begun });
        let handle = ConnectionHandle::new(sender, shared.clone());
        let parts = Parts { intake: Some(intake), running: FuturesUnordered::new(), spawned, shared };
        let mut connection = ConnectionTask { parts, wakes: CoalesceWakes::new(), flusher };
        connection.greeted().await?;
        Ok((handle, connection))
    };
    timeout_at(end, greeting).await.unwrap_or(Err(ConnectError::Timeout))
}

fn http2(inline: Inline, keepalive: Keepalive) -> http2::Builder<Inline> {
    let mut builder = http2::Builder::new(inline);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(keepalive.while_idle)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST_SIZE)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_local_error_reset_streams(LATE_FRAMES)
        // Raised by the server's SETTINGS: see `greeted`.
        .initial_max_send_streams(0_usize);
    builder
}

type Intake = http2::Connection<TokioIo<WriteBuffer>, AttemptBody, Inline>;

/// A connection. It must be driven; dropping it cuts the connection.
pub(crate) struct ConnectionTask {
    parts: Parts,
    wakes: CoalesceWakes,
    flusher: Flusher,
}

/// The work of a connection.
struct Parts {
    /// Takes in calls; `None` once it takes no more.
    intake: Option<Intake>,
    /// The rest: frames in and out, and every call under way.
    running: FuturesUnordered<Part>,
    /// Parts that have just been begun. One per call, so bounded by the streams that the server allows.
    spawned: mpsc::UnboundedReceiver<Part>,
    shared: Arc<Shared>,
}

impl ConnectionTask {
    /// Waits for the server's SETTINGS.
    async fn greeted(&mut self) -> Result<(), ConnectError> {
        poll_fn(|context| {
            self.run(context, |parts, context| {
                if let Poll::Ready(ended) = parts.poll_intake(context) {
                    return Poll::Ready(Err(ended.map_or_else(ConnectError::from, |()| ConnectError::Closed)));
                }
                match &parts.intake {
                    Some(intake) if intake.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                    _ => Poll::Pending,
                }
            })
        })
        .await
    }

    /// Drives the connection until it takes no more calls: the server leaves, or it broke, or its last handle is gone.
    pub(crate) async fn serve(&mut self) -> hyper::Result<()> {
        poll_fn(|context| self.run(context, Parts::poll_intake)).await
    }

    /// Drives what is under way to its end.
    pub(crate) async fn finish(mut self) {
        poll_fn(|context| self.run(context, Parts::poll_to_end)).await;
    }

    /// Lets the parts work until they wait for others, and sends what they have written.
    fn run<T>(
        &mut self,
        context: &mut Context<'_>,
        mut work: impl FnMut(&mut Parts, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Self { parts, wakes, flusher } = self;
        let busy = parts.running.len() > FEW;
        let polled = wakes.poll(context, busy, |context| work(parts, context));
        flusher.flush(context);
        polled
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shared.ended.close();
    }
}

impl Parts {
    fn poll_intake(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.shared.ended.clear();
        // What has come in first: if it is the connection's end, the calls that have just been made are given back unsent.
        self.poll_spawned(context);
        let Some(intake) = &mut self.intake else { return Poll::Ready(Ok(())) };
        // What hyper may have begun with elsewhere must not be taken for the stream of a call that is taken in now.
        self.shared.just_begun.take();
        let polled = Pin::new(&mut *intake).poll(context);
        self.shared.stream_limit.set(intake.current_max_send_streams());
        if polled.is_ready() {
            self.intake = None;
            self.shared.ended.close();
        }
        self.poll_spawned(context);
        polled
    }

    fn poll_to_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_spawned(context);
        if self.running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_spawned(&mut self, context: &mut Context<'_>) {
        loop {
            // No need to be woken for them: only this task's own work begins parts.
            while let Ok(part) = self.spawned.try_recv() {
                self.running.push(part);
            }
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some(())) => {}
                // A part may have begun another one.
                Poll::Ready(None) | Poll::Pending if !self.spawned.is_empty() => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }
}

/// A part of a connection: to hyper, what it would spawn.
struct Part {
    work: BoxFuture<'static, ()>,
    /// The request stream that it sends.
    sends: Option<Arc<AttemptStream>>,
}

impl Future for Part {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ends = self.sends.as_ref().is_some_and(|stream| stream.poll_end(context).is_ready());
        match self.work.as_mut().poll(context) {
            // Otherwise it sees that end by itself, unless flow control holds it up.
            Poll::Pending if !ends => Poll::Pending,
            Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
        }
    }
}

/// hyper's executor, that hands all work to the connection's own task.
#[derive(Clone)]
struct Inline {
    parts: mpsc::UnboundedSender<Part>,
    just_begun: JustBegun,
}

impl<F> Executor<F> for Inline
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, part: F) {
        // Fails only when the connection is gone, and with it the part's purpose.
        let _ = self.parts.send(Part { work: Box::pin(part), sends: self.just_begun.take() });
    }
}
