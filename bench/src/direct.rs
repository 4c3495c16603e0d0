//! A plain gRPC connection to one process: no discovery, no balancing, nothing repeated.

use std::{io, net::SocketAddr};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshwork::contract::shop::query::v1::query_service_client::QueryServiceClient;
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

use crate::shop_processes::Instance;

/// What a generated client stands on. The connection ends with its last clone.
pub(crate) type Direct = BoxCloneSyncService<Request<Body>, Response<Incoming>, hyper::Error>;

/// Asks one instance of query: the mesh would ask any of them.
pub(crate) async fn query(instance: &Instance) -> io::Result<QueryServiceClient<Direct>> {
    let address = instance.address().ok_or_else(|| io::Error::other("it does not run"))?;
    let origin = format!("http://{address}").parse().expect("an address is an authority");
    Ok(QueryServiceClient::with_origin(connect(address).await?, origin))
}

async fn connect(address: SocketAddr) -> io::Result<Direct> {
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
