//! A call in strict mode against the same call in plain text with an Envoy on either side, which encrypt it between them.
//!
//! ```text
//!   client ── TLS ── server                                          strict mode
//!   client ── plain ── Envoy ── TLS ── Envoy ── plain ── server      the server has registered with the first Envoy's address
//! ```

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use meshwork_caller::{Load, Slice};
use meshwork_harness::{
    certificates::{AN_HOUR, Certificates, TRUST_DOMAIN},
    process::Process,
};
use tokio::{net::TcpStream, time::sleep};

use super::{args::Args, error::Error, found::Found};
use crate::{
    clients::{
        Peer, callers_program,
        ratios::{median_of, median_ratio},
    },
    echo::{Echo, SERVICE},
    envoy::{Tls, Transport, config},
};

/// Calls under way at a time.
const IN_FLIGHT: usize = 64;
/// How long an Envoy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Measures the CPU of a call with this Envoy.
pub(super) async fn against_envoy(envoy: &Path, args: &Args, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let program = callers_program(args.caller.as_deref()).await?;
    let plain = Echo::start().await?;
    let strict = Echo::start_encrypted(Certificates::new(&scratch.join("sidecars"))?).await?;
    let strict_server = Rc::new(strict.spawn_service(SERVICE, &[])?);
    strict.serving(SERVICE, 1).await?;

    let certificates = Certificates::new(&scratch.join("envoys"))?;
    let [client, server] = ["service/client", "service/server"];
    certificates.issue(client, AN_HOUR)?;
    certificates.issue(server, AN_HOUR)?;
    let [outbound, inbound, listens] = ports().map_err(Error::Port)?;
    let (of_client, of_server) = (certificates.flag(client), certificates.flag(server));
    let tls = |folder, peer| Some(Tls { folder, peer });
    let [server, client] = ["server", "client"].map(|name| format!("spiffe://{TRUST_DOMAIN}/service/{name}"));
    let (connects, accepts) = (tls(&of_client, &server), tls(&of_server, &client));
    let near = Transport { connects, accepts: None };
    let far = Transport { accepts, connects: None };
    let near = start(envoy, scratch, "envoy-of-client", outbound, &config(outbound, &[local(inbound)], near)).await?;
    let far = start(envoy, scratch, "envoy-of-server", inbound, &config(inbound, &[local(listens)], far)).await?;
    let flags = ["--listen", &local(listens), "--advertise", &local(outbound)];
    let plain_server = Rc::new(plain.spawn_service(SERVICE, &flags)?);
    plain.serving(SERVICE, 1).await?;

    let mut ours = Peer::meshwork(&program, "tls_one", &strict, SERVICE)?.with([strict_server]);
    let mut theirs = Peer::meshwork(&program, "envoy_mtls", &plain, SERVICE)?.with([plain_server, near, far]);
    let load = Load { in_flight: IN_FLIGHT, time: args.slice() };
    let [ours, theirs] = found.turns.alternate(args.slices, load, [&mut ours, &mut theirs]).await?;
    found.figures.add("cpu_vs_envoy_mtls", median_ratio(&ours, &theirs, Slice::cpu_us));
    found.figures.add("cpu_us_tls_one", median_of(&ours, Slice::cpu_us));
    found.figures.add("cpu_us_envoy_mtls", median_of(&theirs, Slice::cpu_us));
    strict.stop().await;
    plain.stop().await;
    Ok(())
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Free ports. No other process takes them meanwhile; if one does, the proxy or the server says so and the run ends.
fn ports<const N: usize>() -> io::Result<[u16; N]> {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// Starts an Envoy, and waits until it listens.
async fn start(
    program: &Path,
    scratch: &Path,
    name: &'static str,
    port: u16,
    config: &str,
) -> Result<Rc<Process>, Error> {
    let failed = |source| Error::Envoy { name, source };
    let file = scratch.join(format!("{name}.json")).display().to_string();
    fs::write(&file, config).map_err(failed)?;
    let process = Process::start(program, &["-c", &file, "--log-level", "error", "--disable-hot-restart"])?;
    let until = Instant::now() + START_LIMIT;
    while let Err(error) = TcpStream::connect(local(port)).await {
        if Instant::now() > until {
            return Err(failed(error));
        }
        sleep(POLL).await;
    }
    Ok(Rc::new(process))
}
