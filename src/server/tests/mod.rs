//! The server in process: connections are in-memory pipes, and the clock is paused where time matters.

mod authorization;
mod calls;
mod compression;
mod drain;
mod floods;
mod health;
mod layers;
mod limits;
pub(crate) mod logged;
mod metrics;
mod probe;
mod tls;

use std::time::Duration;

use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, codegen::Service};

use super::*;
use crate::contract::meshwork::registry::v1::registry_service_client::RegistryServiceClient;
use probe::Probe;

/// Nothing in these tests takes longer by its promise; on a paused clock it costs no time.
const SOON: Duration = Duration::from_secs(600);

/// What a server test must not wait for in vain.
async fn soon<F: Future>(work: F) -> F::Output {
    timeout(SOON, work).await.expect("it should have ended by now")
}

/// A server that runs, and the ends that a test pulls.
struct Running {
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    shutdown: CancellationToken,
    draining: CancellationToken,
    server: JoinHandle<Result<(), Error>>,
    probe: Probe,
}

fn config() -> Config {
    Config { instance_id: "probe-1".into(), ..Config::new("probe", "127.0.0.1:1") }
}

/// Runs a probe under this config, changed by `change`.
fn run(config: Config, change: impl FnOnce(Server) -> Server) -> Running {
    let server = Server::new(config);
    let (connections, incoming) = mpsc::channel(16);
    let (shutdown, draining) = (CancellationToken::new(), server.draining());
    let probe = Probe::new(draining.clone());
    let server = change(server.add_service(probe.service()));
    let server = server.serve(ReceiverStream::new(incoming), shutdown.clone().cancelled_owned());
    Running { connections, shutdown, draining, server: tokio::spawn(server), probe }
}

impl Running {
    /// The client's end of a new connection.
    async fn pipe(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.connections.send(Ok(far)).await.expect("the server accepts");
        near
    }

    async fn connect(&self) -> hyper::Result<Connection> {
        connect_over(self.pipe().await).await
    }

    async fn client(&self) -> RegistryServiceClient<Connection> {
        client(self.connect().await.expect("the server answers"))
    }

    /// Shuts down and waits for the end.
    async fn stop(self) -> Result<(), Error> {
        self.shutdown.cancel();
        soon(self.server).await.expect("no panic")
    }
}

async fn connect_over<IO>(pipe: IO) -> hyper::Result<Connection>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.timer(TokioTimer::new()).handshake(TokioIo::new(pipe)).await?;
    Ok(Connection { sender, driver: std::sync::Arc::new(tokio::spawn(connection)) })
}

fn client(connection: Connection) -> RegistryServiceClient<Connection> {
    RegistryServiceClient::with_origin(connection, http::Uri::from_static("http://probe"))
}

/// One HTTP/2 connection as a tonic transport.
#[derive(Clone)]
struct Connection {
    sender: SendRequest<Body>,
    driver: std::sync::Arc<JoinHandle<hyper::Result<()>>>,
}

impl Service<http::Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// A request with one header more.
fn with_header<M>(message: M, name: &'static str, value: &'static str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, value.parse().expect("a header value"));
    request
}

/// A header of a status that the server answered.
fn header<'a>(status: &'a tonic::Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name)?.to_str().ok()
}
