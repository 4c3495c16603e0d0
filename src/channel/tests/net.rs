//! A network in memory, and what listens in it.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::{
    Mesh,
    channel::{Channel, Connector, Target},
    server::{Config, Server},
};

/// Answers with the name of its instance.
pub(crate) const WHO: &str = "/test.Echo/Who";
/// Answers when the host is released.
pub(crate) const WAIT: &str = "/test.Echo/Wait";
/// Echoes a stream.
pub(crate) const STREAM: &str = "/test.Echo/Stream";
/// Answers with the `grpc-timeout` that came.
pub(crate) const TIMEOUT: &str = "/test.Echo/Timeout";

/// Answers with the name of its instance, and is declared NO_SIDE_EFFECTS.
pub(crate) const READ: &str = "/test.Echo/Read";
/// The same, declared IDEMPOTENT.
pub(crate) const WRITE: &str = "/test.Echo/Write";
/// A stream that is declared NO_SIDE_EFFECTS.
pub(crate) const FOLLOW: &str = "/test.Echo/Follow";

/// Fails as if its server had not begun with it.
pub(crate) const CLAIM: &str = "/test.Echo/Claim";
/// Asks [`WHO`] of the downstream service.
pub(crate) const PASS_ON: &str = "/test.Echo/PassOn";

/// Addresses and their listeners. An address without a listener refuses connections.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<State>);

#[derive(Default)]
struct State {
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>,
    attempts: AtomicUsize,
    writes: Arc<AtomicUsize>,
}

/// The client's end of a connection, whose writes are counted.
struct Counted {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.get_mut().io).poll_write(context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

pub(crate) type Incoming = mpsc::UnboundedReceiver<DuplexStream>;

impl Net {
    pub(crate) fn connector(&self) -> Connector {
        let net = self.clone();
        Connector::new(move |target: Target| {
            net.0.attempts.fetch_add(1, Ordering::SeqCst);
            let listener = net.0.listeners.lock().get(&*target.address).cloned();
            let writes = net.0.writes.clone();
            async move {
                let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
                let (near, far) = tokio::io::duplex(64 * 1024);
                listener.ok_or_else(refused)?.send(far).map_err(|_| refused())?;
                Ok(Counted { io: near, writes })
            }
        })
    }

    /// Listens at an address from now on.
    pub(crate) fn listen(&self, address: &str) -> Incoming {
        let (connections, incoming) = mpsc::unbounded_channel();
        self.0.listeners.lock().insert(address.to_owned(), connections);
        incoming
    }

    /// How often clients have written to their connections.
    pub(crate) fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// How many connections were asked for.
    pub(crate) fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::SeqCst)
    }
}

/// A Meshwork server with the service `test.Echo`.
pub(crate) struct Host {
    echo: Echo,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Host {
    pub(crate) fn start(net: &Net, address: &str, id: &str) -> Self {
        Self::configured(net, address, id, |_| {})
    }

    /// In this mesh.
    pub(crate) fn announced(net: &Net, address: &str, id: &str, mesh: &Mesh) -> Self {
        Self::serving(net, address, id, |_| {}, |server| server.announce(mesh.clone()))
    }

    pub(crate) fn configured(net: &Net, address: &str, id: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::serving(net, address, id, change, |server| server)
    }

    fn serving(
        net: &Net,
        address: &str,
        id: &str,
        change: impl FnOnce(&mut Config),
        build: impl FnOnce(Server) -> Server,
    ) -> Self {
        let echo = Echo { id: id.into(), state: Arc::new(EchoState::default()) };
        let mut config = Config { instance_id: id.into(), ..Config::new("echo", address) };
        change(&mut config);
        let incoming = UnboundedReceiverStream::new(net.listen(address)).map(Ok);
        let shutdown = CancellationToken::new();
        let server = build(Server::new(config).add_service(echo.clone()));
        let serving = server.serve(incoming, shutdown.clone().cancelled_owned());
        let task = tokio::spawn(async move { serving.await.expect("served") });
        Self { echo, shutdown, task }
    }

    /// Lets the calls of [`WAIT`] go.
    pub(crate) fn release(&self) {
        self.echo.state.release.notify_waiters();
    }

    /// Every call takes this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        *self.echo.state.delay.lock() = delay;
    }

    /// Whom [`PASS_ON`] asks.
    pub(crate) fn set_downstream(&self, downstream: Channel) {
        *self.echo.state.downstream.lock() = Some(downstream);
    }

    /// How many calls it has begun.
    pub(crate) fn calls(&self) -> usize {
        *self.echo.state.calls.borrow()
    }

    pub(crate) async fn until_calls(&self, calls: usize) {
        let mut seen = self.echo.state.calls.subscribe();
        super::soon(seen.wait_for(|now| *now >= calls)).await.expect("the host is here");
    }

    /// Ends at once, as if it were killed.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Leaves as a server does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        super::soon(self.task).await.expect("no panic");
    }
}

#[derive(Clone)]
struct Echo {
    id: String,
    state: Arc<EchoState>,
}

#[derive(Default)]
struct EchoState {
    calls: watch::Sender<usize>,
    release: Notify,
    delay: Mutex<Duration>,
    downstream: Mutex<Option<Channel>>,
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Echo {
    async fn unary(&self, path: &str, request: Request<String>) -> Result<Response<String>, Status> {
        let delay = *self.state.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if path == WAIT {
            self.state.release.notified().await;
        }
        if path == CLAIM {
            let mut status = Status::unavailable("not now");
            status.metadata_mut().insert("meshwork-refused", "draining".parse().expect("a header value"));
            return Err(status);
        }
        if path == PASS_ON {
            let downstream = self.state.downstream.lock().clone();
            let mut client = tonic::client::Grpc::new(downstream.expect("set by the test"));
            client.ready().await?;
            return client.unary(request, PathAndQuery::from_static(WHO), ProstCodec::default()).await;
        }
        let timeout = request.metadata().get("grpc-timeout").map(|timeout| timeout.to_str().expect("text").to_owned());
        Ok(Response::new(if path == TIMEOUT { timeout.unwrap_or_default() } else { self.id.clone() }))
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let mut grpc = Grpc::new(ProstCodec::<String, String>::default());
        if path == STREAM || path == FOLLOW {
            let echo = |request: Request<Streaming<String>>| async { Ok(Response::new(request.into_inner())) };
            return grpc.streaming(service_fn(echo), request).await;
        }
        let answer = move |request| {
            let (echo, path) = (self.clone(), path.clone());
            async move { echo.unary(&path, request).await }
        };
        grpc.unary(service_fn(answer), request).await
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.state.calls.send_modify(|calls| *calls += 1);
        let echo = self.clone();
        Box::pin(async move { Ok(echo.answer(request).await) })
    }
}

/// A server that speaks HTTP/2 by hand.
pub(crate) struct RawPeer {
    incoming: Incoming,
}

pub(crate) type RawConnection = h2::server::Connection<Ears, Bytes>;

impl RawPeer {
    pub(crate) fn listen(net: &Net, address: &str) -> Self {
        Self { incoming: net.listen(address) }
    }

    /// The next connection, after its handshake.
    pub(crate) async fn accept(&mut self) -> RawConnection {
        self.accept_deaf(Arc::default()).await
    }

    /// The same, that hears nothing while `deaf`: what it says is then said before it has heard the client.
    pub(crate) async fn accept_deaf(&mut self, deaf: Arc<AtomicBool>) -> RawConnection {
        let io = super::soon(self.incoming.recv()).await.expect("the net is here");
        h2::server::handshake(Ears { io, deaf }).await.expect("an HTTP/2 client")
    }
}

/// The server's end of a connection.
pub(crate) struct Ears {
    io: DuplexStream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Ears {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.deaf.load(Ordering::SeqCst) { Poll::Pending } else { Pin::new(&mut self.io).poll_read(cx, buffer) }
    }
}

impl AsyncWrite for Ears {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
