//! What mutual TLS costs: a call against the same client and server in plain text, and against Envoys that encrypt; and a handshake.
//! And whether certificates, their authority and modes change under load without a failed call.

mod args;
mod calls;
mod error;
mod found;
mod handshakes;
mod migration;
mod rotation;
mod shop;
mod sidecars;
mod traffic;

use std::path::Path;

use meshwork_fixture::ServerError;
use meshwork_harness::{
    report::RunOutcome,
    shop_processes::{self, Programs},
};

pub(crate) use args::Args;
pub(crate) use error::Error;

use crate::clients::Turns;
use args::Part;
use found::Found;

const SETUP: &str = "Calls: closed loop, 64-byte echo, unary, no deadline; two meshes, one in plain text and one in strict mode \
    (TLS 1.3, ECDSA P-256, no resumption, certificates of both sides verified), each with its registry in the bench's process, a server \
    process of three endpoints, and a client process (bench/caller). The clients take turns in slices; a figure is the median of the \
    ratios of neighbouring slices. CPU is user and system time of the client's and the server's process together, per call. \
    plain_vs_itself is a second client in plain text against the first: its distance from one is the noise of the others. \
    Handshakes: Meshwork's server and Identity::connect in one process over loopback TCP; each connection ends once the client has read \
    the server's first HTTP/2 frame, which a server sends only to a client that it has verified; the CPU is that of the process, client \
    and server together. Envoy: Meshwork's client and server in plain text, each with an Envoy beside it (a worker thread for each \
    core), and TLS 1.3 with verified certificates between the two Envoys; CPU is that of all four processes. The server has one \
    endpoint there, and so has the one in strict mode that it is measured against. Rotation and migration: the shop's processes on \
    PostgreSQL, two instances of each service, one registry; an open loop of 500 calls/s from the bench's process, in turn CreateOrder, \
    GetCustomer, GetOrder and ListOrders, each with a deadline of 5 s; every order must be APPROVED in the end.";

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
    match &args.envoy {
        Some(envoy) if args.measures(Part::Envoy) => sidecars::against_envoy(envoy, args, scratch, &mut found).await?,
        None if args.only == Some(Part::Envoy) => return Err(Error::NoEnvoy),
        Some(_) | None => {}
    }
    if args.measures(Part::Rotation) || args.measures(Part::Migration) {
        match in_a_shop(args, scratch, &mut found).await {
            Err(Error::Shop(shop_processes::Error::Postgres(ServerError::NotInstalled))) => {
                eprintln!("PostgreSQL is not installed: rotation and migration are left out");
            }
            measured => measured?,
        }
    }
    let Found { figures, turns: Turns { failures, rounds } } = found;
    Ok(RunOutcome { setup: SETUP, rounds, figures, failures })
}

async fn in_a_shop(args: &Args, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let programs = Programs::build(env!("CARGO_PKG_NAME")).await?;
    if args.measures(Part::Rotation) {
        rotation::measure(&programs, scratch, found).await?;
    }
    if args.measures(Part::Migration) {
        migration::measure(&programs, scratch, found).await?;
    }
    Ok(())
}
