//! How connections are made: the one hook for TCP and simulated networks, and TLS over either.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{dial, identity::Security};

/// For TCP alone: less than the whole connection has, so that an error still says which address did not answer.
const TCP_LIMIT: Duration = Duration::from_millis(1_800);

/// What a connection must be.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Any connection.
pub type BoxedIo = Box<dyn Io>;

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The address, host:port, of an instance or a registry.
    pub address: Arc<str>,
    /// The service that is called, as the caller has named it; `registry` for a registry.
    pub service: Arc<str>,
}

type Connect = dyn Fn(Target) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync;

/// Makes a connection. The channel sets its time limit (2 s, the handshakes of TLS and HTTP/2 included), and adds TLS itself, if the
/// mesh has an identity.
#[derive(Clone)]
pub struct Connector(Arc<Connect>);

impl Connector {
    /// Plain TCP, without Nagle's delay: the default. The addresses of a name race ([`dial`](crate::dial)).
    pub fn tcp() -> Self {
        Self::new(|target: Target| async move {
            let stream = dial::tcp(&target.address, TCP_LIMIT).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// A connector of your own.
    pub fn new<F, Fut, IO>(connect: F) -> Self
    where
        F: Fn(Target) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: Io,
    {
        Self(Arc::new(move |target| {
            let connecting = connect(target);
            Box::pin(async move { connecting.await.map(|io| Box::new(io) as BoxedIo) })
        }))
    }

    pub(crate) async fn connect(&self, target: Target) -> io::Result<BoxedIo> {
        (self.0)(target).await
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self::tcp()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// How the endpoints of one service are connected to.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    pub(crate) security: Security,
    pub(crate) service: Arc<str>,
}

/// A transport, and when the certificate expires that its server has shown.
pub(super) type Secured = (BoxedIo, Option<SystemTime>);

impl Dialer {
    pub(super) async fn connect(&self, address: &Arc<str>) -> io::Result<BoxedIo> {
        self.connector.connect(Target { address: address.clone(), service: self.service.clone() }).await
    }

    /// Adds TLS, unless the process runs in plain mode; or in permissive mode and the endpoint has no identity.
    pub(super) async fn secure(&self, io: BoxedIo, has_identity: bool) -> io::Result<Secured> {
        match self.security.to_instance(has_identity) {
            None => Ok((io, None)),
            Some(identity) => {
                let (stream, expires) = identity.connect(&self.service, io).await?;
                Ok((Box::new(stream), Some(expires)))
            }
        }
    }
}
