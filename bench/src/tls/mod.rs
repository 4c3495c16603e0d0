//! What mutual TLS costs: for a call, against the same client and server in plain text, and for a handshake.

mod args;
mod calls;
mod error;
mod handshakes;

use std::path::Path;

use meshwork_harness::report::{Figures, RunOutcome};

pub(crate) use args::Args;
pub(crate) use error::Error;

use crate::clients::Turns;
use args::Part;

const SETUP: &str = "Calls: closed loop, 64-byte echo, unary, no deadline; two meshes, one in plain text and one in strict mode (TLS \
    1.3, ECDSA P-256, no resumption, certificates of both sides verified), each with its registry in the bench's process, a server process of three \
    endpoints, and a client process (bench/caller). The clients take turns in slices; a figure is the median of the ratios of \
    neighbouring slices. CPU is user and system time of the client's and the server's process together, per call. plain_vs_itself is \
    a second client in plain text against the first: its distance from one is the noise of the others. Handshakes: Meshwork's server and \
    Identity::connect in one process over loopback TCP; each connection ends once the client has read the server's first HTTP/2 \
    frame, which a server sends only to a client that it has verified; the CPU is that of the process, client and server together.";

/// Measures, with certificates under `scratch`.
pub(crate) async fn run(args: &Args, scratch: &Path) -> Result<RunOutcome, Error> {
    let mut found = Found::default();
    if args.measures(Part::Handshakes) {
        // First: nothing else runs in this process yet.
        handshakes::measure(args, scratch, &mut found).await?;
    }
    if args.measures(Part::Calls) {
        calls::against_plain(args, scratch, &mut found).await?;
    }
    let Found { figures, turns: Turns { failures, rounds } } = found;
    Ok(RunOutcome { setup: SETUP, rounds, figures, failures })
}

#[derive(Default)]
struct Found {
    figures: Figures,
    turns: Turns,
}
