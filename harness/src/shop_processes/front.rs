//! The address that others reach an instance by: passes bytes on to the process, unless connections are cut or stalled.
//!
//! As the network does, it knows nothing of calls. It ends with the process's life, so that a connection to a dead
//! instance is refused.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Bytes that are passed on at a time, for each direction of a connection: what waits while it is stalled, beside the kernel's
/// buffers.
const BUFFER: usize = 16 * 1024;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Counts up when all connections there are shall break.
    cuts: u64,
    /// Nothing is passed on, and nothing breaks.
    stalled: bool,
}

/// The front of one process.
pub(super) struct Front {
    address: SocketAddr,
    backend: watch::Sender<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
    _task: AbortOnDropHandle<()>,
}

impl Front {
    /// Listens on a free port; connections wait for [`open`](Self::open).
    pub(super) async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (backend, weather) = (watch::Sender::new(None), watch::Sender::new(Weather::default()));
        let task = tokio::spawn(accept(listener, backend.subscribe(), weather.subscribe()));
        Ok(Self { address, backend, weather, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes connections on to the process, which listens there.
    pub(super) fn open(&self, backend: SocketAddr) {
        self.backend.send_replace(Some(backend));
    }

    /// Breaks all connections there are.
    pub(super) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Holds all bytes back, of new connections as well, or passes them on again.
    pub(super) fn stall(&self, stalled: bool) {
        self.weather.send_modify(|weather| weather.stalled = stalled);
    }
}

async fn accept(
    listener: TcpListener,
    backend: watch::Receiver<Option<SocketAddr>>,
    weather: watch::Receiver<Weather>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(serve(client, backend.clone(), weather.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection to its end. Errors are part of the weather.
async fn serve(
    client: TcpStream,
    mut backend: watch::Receiver<Option<SocketAddr>>,
    mut weather: watch::Receiver<Weather>,
) {
    let cuts = weather.borrow_and_update().cuts;
    let passed = async {
        let address = match backend.wait_for(Option::is_some).await {
            Ok(address) => (*address).ok_or(io::ErrorKind::NotConnected)?,
            Err(_) => return Ok(()),
        };
        let server = TcpStream::connect(address).await?;
        // Small frames must not wait here any more than in the mesh.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let there = pass(from_client, to_server, weather.clone());
        tokio::try_join!(there, pass(from_server, to_client, weather.clone())).map(|_| ())
    };
    let mut cut = weather.clone();
    tokio::select! {
        _ = passed => {}
        _ = cut.wait_for(|weather| weather.cuts != cuts) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if weather.wait_for(|weather| !weather.stalled).await.is_err() {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A front, a connection through it, and the server's end of that.
    async fn connected() -> (Front, TcpStream, TcpStream) {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Front::listen().await.unwrap();
        let client = TcpStream::connect(front.address()).await.unwrap();
        front.open(backend.local_addr().unwrap());
        let (server, _) = timeout(LIMIT, backend.accept()).await.unwrap().unwrap();
        (front, client, server)
    }

    async fn read(stream: &mut TcpStream) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let read = timeout(LIMIT, stream.read(&mut byte)).await.unwrap()?;
        Ok((read > 0).then_some(byte[0]))
    }

    #[tokio::test]
    async fn bytes_and_the_end_of_them_pass_in_both_directions() {
        let (_front, mut client, mut server) = connected().await;
        client.write_all(&[1]).await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), Some(1));
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), None);
        server.write_all(&[2]).await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn a_cut_breaks_the_connections_there_are_at_both_ends() {
        let (front, mut client, mut server) = connected().await;
        front.cut();
        assert!(!matches!(read(&mut client).await, Ok(Some(_))));
        assert!(!matches!(read(&mut server).await, Ok(Some(_))));
        assert!(TcpStream::connect(front.address()).await.is_ok(), "new ones stand");
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_breaks_nothing() {
        let (front, mut client, mut server) = connected().await;
        front.stall(true);
        client.write_all(&[1]).await.unwrap();
        front.stall(false);
        assert_eq!(read(&mut server).await.unwrap(), Some(1));

        front.stall(true);
        client.write_all(&[2]).await.unwrap();
        front.cut();
        assert!(!matches!(read(&mut server).await, Ok(Some(_))), "it was held back when the connection broke");
    }

    #[tokio::test]
    async fn a_front_that_is_gone_refuses() {
        let (front, mut client, _server) = connected().await;
        let address = front.address();
        drop(front);
        assert!(!matches!(read(&mut client).await, Ok(Some(_))));
        assert!(TcpStream::connect(address).await.is_err());
    }
}
