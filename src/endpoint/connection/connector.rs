//! How connections are made: the one hook for TCP, TLS and simulated networks.

use std::{fmt, io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial;

/// For TCP alone: less than the whole connection has, so that an error still says which address did not answer.
const TCP_LIMIT: Duration = Duration::from_millis(1_800);

/// What a connection must be.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Any connection.
pub type BoxedIo = Box<dyn Io>;

type Connect = dyn Fn(Arc<str>) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync;

/// Makes a connection to an address, host:port. The channel sets its time limit (2 s, the HTTP/2 handshake included).
#[derive(Clone)]
pub struct Connector(Arc<Connect>);

impl Connector {
    /// Plain TCP, without Nagle's delay: the default. The addresses of a name race ([`dial`](crate::dial)).
    pub fn tcp() -> Self {
        Self::new(|address: Arc<str>| async move {
            let stream = dial::tcp(&address, TCP_LIMIT).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// A connector of your own.
    pub fn new<F, Fut, IO>(connect: F) -> Self
    where
        F: Fn(Arc<str>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: Io,
    {
        Self(Arc::new(move |address| {
            let connecting = connect(address);
            Box::pin(async move { connecting.await.map(|io| Box::new(io) as BoxedIo) })
        }))
    }

    pub(crate) async fn connect(&self, address: Arc<str>) -> io::Result<BoxedIo> {
        (self.0)(address).await
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
