//! A plain gRPC connection to one process: no discovery, no balancing, nothing repeated.

use std::{io, net::SocketAddr};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

/// What a generated client stands on. The connection ends with its last clone.
pub(crate) type Direct = BoxCloneSyncService<Request<Body>, Response<Incoming>, hyper::Error>;

/// Connects to a process.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Direct> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    // Ends with the last sender; its error is that of the calls.
    tokio::spawn(connection);
    Ok(BoxCloneSyncService::new(tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    })))
}
