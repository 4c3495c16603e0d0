//! Handshakes: a client with Meshwork's identity, and Meshwork's server, in this process.

use std::{net::SocketAddr, path::Path};

use futures_util::future::try_join_all;
use meshwork::{
    identity::{Identity, Security},
    server::{Config, Server},
};
use meshwork_harness::{certificates::Certificates, figure::median, report::Figures};
use meshwork_process::{HostPort, Listener};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::oneshot};

use super::{args::Args, error::Error, found::Found};
use crate::{cpu::process_time, echo::SERVICE};

/// Rounds, of which the median counts.
const ROUNDS: usize = 5;
/// Handshakes under way at a time.
const AT_ONCE: u64 = 8;
/// The header of an HTTP/2 frame: what a server sends first (RFC 9113, 3.4), once it has verified the client.
const FRAME_HEADER: usize = 9;

/// Measures how many a second of CPU is worth.
pub(super) async fn measure(args: &Args, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let certificates = Certificates::new(&scratch.join("handshakes"))?;
    let (client, server) =
        (certificates.identity("service/bench")?, certificates.identity(&format!("service/{SERVICE}"))?);
    let any: HostPort = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind("--listen", &any).await.map_err(Error::Listen)?;
    let address = listener.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new(Config::new(SERVICE, address.to_string())).security(Security::Strict(server));
    let serving = tokio::spawn(server.serve(listener, async move { drop(stopped.await) }));

    // What the first pay for is not theirs.
    shake_hands(&client, address, AT_ONCE).await?;
    let mut per_cpu_s = Vec::new();
    for _ in 0..ROUNDS {
        let before = process_time();
        shake_hands(&client, address, args.handshakes).await?;
        per_cpu_s.push(args.handshakes as f64 / (process_time() - before).as_secs_f64());
    }
    let name = "handshakes_per_cpu_s";
    found.figures.add(name, median(&per_cpu_s));
    found.turns.rounds.extend(per_cpu_s.into_iter().map(|value| {
        let mut round = Figures::default();
        round.add(name, value);
        round
    }));
    drop(stop);
    if let Ok(Err(error)) = serving.await {
        eprintln!("the server of the handshakes has ended: {error}");
    }
    Ok(())
}

/// As many handshakes, some at a time.
async fn shake_hands(client: &Identity, address: SocketAddr, count: u64) -> Result<(), Error> {
    let lanes = (0..AT_ONCE).map(|lane| {
        let (client, count) = (client.clone(), count / AT_ONCE + u64::from(lane < count % AT_ONCE));
        async move {
            for _ in 0..count {
                let io = TcpStream::connect(address).await?;
                io.set_nodelay(true)?;
                let (mut io, _) = client.connect(SERVICE, io).await?;
                io.read_exact(&mut [0; FRAME_HEADER]).await?;
            }
            Ok::<_, std::io::Error>(())
        }
    });
    try_join_all(lanes).await.map_err(Error::Handshake)?;
    Ok(())
}
