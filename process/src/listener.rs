//! A TCP listener as a stream of connections, which says on stdout when the process is ready.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};

use super::{failure::Failure, host_port::HostPort};

/// A TCP listener as a stream of connections.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
    /// Printed when the first connection is asked for: not before, since until then the process may still fail.
    ready: Option<String>,
}

impl Listener {
    /// Listens at an address that was given as `flag`; port 0 takes a free one.
    pub async fn bind(flag: &'static str, address: &HostPort) -> Result<Self, Failure> {
        let unusable = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                Failure::flag(flag, address, "the port is in use; give another one, or 0 to take a free one")
            }
            _ => Failure::flag(flag, address, format!("cannot listen there: {error}")),
        };
        let inner = TcpListener::bind(address.as_str()).await.map_err(unusable)?;
        Self::new(inner).map_err(unusable)
    }

    /// The connections of a listener that is bound already.
    ///
    /// # Errors
    /// The listener does not know its own address.
    pub fn new(inner: TcpListener) -> io::Result<Self> {
        let address = inner.local_addr()?;
        Ok(Self { inner, address, ready: None })
    }

    /// Prints `NAME is ready on ADDRESS` to stdout as soon as connections are accepted.
    #[must_use]
    pub fn say_ready(mut self, name: &str) -> Self {
        self.ready = Some(format!("{name} is ready on {}", self.address));
        self
    }

    #[cfg(feature = "prometheus")]
    /// The bare listener, for code that accepts connections itself.
    pub(super) fn into_inner(self) -> TcpListener {
        self.inner
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Stream for Listener {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ready) = self.ready.take() {
            // A closed stdout is no reason not to serve.
            let _ = writeln!(io::stdout(), "{ready}");
        }
        self.inner.poll_accept(context).map(|accepted| {
            Some(accepted.map(|(stream, _)| {
                // Small frames must not wait for the peer's acknowledgement (Nagle). It fails on a connection that has broken already,
                // which the code that serves it finds out.
                let _ = stream.set_nodelay(true);
                stream
            }))
        })
    }
}
