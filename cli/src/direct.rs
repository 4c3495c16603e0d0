//! A plain gRPC connection to one process: no discovery, no balancing, nothing repeated, so that what it says is about that
//! process at that moment.

use std::{io, sync::Arc, time::Duration};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshwork::{
    channel::BoxedIo,
    contract::meshwork::{
        event::v1::{
            ListSubscriptionsRequest, ListSubscriptionsResponse, operations_service_client::OperationsServiceClient,
        },
        registry::v1::Instance,
    },
    dial,
    identity::{Identity, Security},
    rpc::code_name,
};
use parking_lot::Mutex;
use tokio::{task::JoinError, time::timeout};
use tonic::{Code, Status, body::Body};
use tower::util::BoxCloneSyncService;

/// For the look-up of a name and the connection.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// For a connection that takes no calls to say why.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Processes that are asked at a time: a registry knows up to 10,000 instances, and each connection takes a file descriptor.
pub(crate) const MAX_ASKED: usize = 64;

/// What a generated client stands on, with [`Direct::origin`]. The connection ends with its last clone.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Incoming>, hyper::Error>;

/// A connection to one process.
#[derive(Clone, Debug)]
pub struct Direct {
    /// What calls go through.
    pub transport: Transport,
    /// Whom they name.
    pub origin: Uri,
}

/// What an instance says of its subscriptions; `None`: it is of a kind, or a release, that says nothing.
///
/// # Errors
/// Why it does not answer.
pub(crate) async fn subscriptions(
    operations: &mut OperationsServiceClient<Transport>,
) -> Result<Option<ListSubscriptionsResponse>, String> {
    match operations.list_subscriptions(ListSubscriptionsRequest {}).await {
        Ok(told) => Ok(Some(told.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(said(&status)),
    }
}

/// The error with which a connection has ended.
fn why(ended: Result<hyper::Result<()>, JoinError>) -> Option<hyper::Error> {
    ended.ok().and_then(Result::err)
}

/// A status in one line.
pub(crate) fn said(status: &Status) -> String {
    format!("{}: {}", code_name(status.code()), status.message())
}

impl Direct {
    /// Connects to an instance that a registry knows.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn to_instance(instance: &Instance, security: &Security) -> Result<Self, String> {
        let identity = security.to_instance(!instance.identity.is_empty());
        let connected = Self::connect(&instance.address, identity, Some(&instance.service)).await;
        connected.map_err(|error| error.to_string())
    }

    /// Connects to `HOST:PORT`, of which the addresses race for [`CONNECT_LIMIT`]; with an identity by TLS, where the server must be
    /// that service, or any service if none is named.
    ///
    /// # Errors
    /// It cannot be connected to, shows another certificate, or does not speak HTTP/2.
    pub async fn connect(address: &str, identity: Option<&Identity>, service: Option<&str>) -> io::Result<Self> {
        let origin = Uri::try_from(format!("http://{address}")).map_err(io::Error::other)?;
        let stream = dial::tcp(address, CONNECT_LIMIT).await?;
        stream.set_nodelay(true)?;
        let stream: BoxedIo = match (identity, service) {
            (None, _) => Box::new(stream),
            (Some(identity), Some(service)) => Box::new(identity.connect(service, stream).await?.0),
            (Some(identity), None) => Box::new(identity.connect_to_any(stream).await?.0),
        };
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        // Ends with the last sender.
        let connection = Arc::new(Mutex::new(Some(tokio::spawn(connection))));
        let transport = BoxCloneSyncService::new(tower::service_fn(move |request| {
            let (mut sender, connection) = (sender.clone(), connection.clone());
            async move {
                let error = match sender.send_request(request).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                // That of the connection says why, such as that the server takes TLS only.
                let ended = if error.is_canceled() { connection.lock().take() } else { None };
                match ended {
                    Some(ended) => Err(timeout(END_LIMIT, ended).await.ok().and_then(why).unwrap_or(error)),
                    None => Err(error),
                }
            }
        }));
        Ok(Self { transport, origin })
    }
}
