//! The ports of the instances: the same ones at each start, as far as they are free.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

use super::{Error, Service};

/// An instance that listens elsewhere, because its port cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its service.
    pub service: Service,
    /// The port that cannot be used.
    pub from: u16,
    /// Why, as for a port that is in use or that only root may use.
    pub problem: io::ErrorKind,
    /// Where it listens instead.
    pub to: SocketAddr,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, from, problem, to } = self;
        match problem {
            io::ErrorKind::AddrInUse => write!(f, "port {from} is in use")?,
            problem => write!(f, "port {from} cannot be used ({problem})")?,
        }
        write!(f, ": an instance of {} listens on {to} instead (--base-port)", service.name())
    }
}

/// Hands out listeners of 127.0.0.1, one port after the other.
pub(super) struct Ports {
    /// `None`: free ones.
    next: Option<u16>,
    moved: Vec<Moved>,
}

impl Ports {
    pub(super) fn from(base: Option<u16>) -> Self {
        Self { next: base, moved: Vec::new() }
    }

    /// The listener of another instance.
    pub(super) async fn next(&mut self, service: Service) -> Result<TcpListener, Error> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let Some(port) = self.next else { return listen(free).await };
        // After the last there are only free ones.
        self.next = port.checked_add(1);
        let problem = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error.kind(),
        };
        let listener = listen(free).await?;
        let to = listener.local_addr().map_err(|source| Error::Listen { address: free, source })?;
        self.moved.push(Moved { service, from: port, problem, to });
        Ok(listener)
    }

    pub(super) fn moved(self) -> Vec<Moved> {
        self.moved
    }
}

/// Listens at an address.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_follow_each_other_and_a_taken_one_is_replaced_and_told() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let mut ports = Ports::from(Some(port));
        let listener = ports.next(Service::Order).await.expect("a free one");
        let to = listener.local_addr().expect("bound");
        assert_ne!(to.port(), port);
        assert_eq!(ports.next, port.checked_add(1));
        let problem = io::ErrorKind::AddrInUse;
        assert_eq!(ports.moved(), [Moved { service: Service::Order, from: port, problem, to }]);

        drop(taken);
        let mut ports = Ports::from(Some(port));
        let listener = ports.next(Service::Order).await.expect("free again");
        assert_eq!((listener.local_addr().expect("bound").port(), ports.moved()), (port, Vec::new()));
    }

    #[test]
    fn a_port_that_only_root_may_use_is_not_said_to_be_in_use() {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 4711));
        let moved = |problem| Moved { service: Service::Order, from: 80, problem, to }.to_string();
        let rest = "an instance of order listens on 127.0.0.1:4711 instead (--base-port)";
        let denied = moved(io::ErrorKind::PermissionDenied);
        assert_eq!(denied, format!("port 80 cannot be used (permission denied): {rest}"));
        assert_eq!(moved(io::ErrorKind::AddrInUse), format!("port 80 is in use: {rest}"));
    }
}
