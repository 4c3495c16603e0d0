//! A call in strict mode against the same call in plain text.

use std::{path::Path, rc::Rc};

use meshwork_caller::{Load, Slice};
use meshwork_harness::certificates::Certificates;

use super::{args::Args, error::Error, found::Found};
use crate::{
    clients::{
        Peer, callers_program,
        ratios::{median_of, median_ratio},
    },
    echo::{Echo, SERVICE},
};

/// Instances of the service: the usual number.
const ENDPOINTS: usize = 3;

/// Measures the CPU of a call with 64 in flight, and its latency alone.
pub(super) async fn against_plain(args: &Args, scratch: &Path, found: &mut Found) -> Result<(), Error> {
    let program = callers_program(args.caller.as_deref()).await?;
    let plain = Echo::start().await?;
    let strict = Echo::start_encrypted(Certificates::new(&scratch.join("calls"))?).await?;
    let (plain_server, strict_server) = (serve(&plain).await?, serve(&strict).await?);

    let mut in_plain = Peer::meshwork(&program, "plain", &plain, SERVICE)?.with([plain_server.clone()]);
    let mut again = Peer::meshwork(&program, "plain_again", &plain, SERVICE)?.with([plain_server]);
    let mut in_tls = Peer::meshwork(&program, "tls", &strict, SERVICE)?.with([strict_server]);
    for in_flight in [1, 64] {
        let load = Load { in_flight, time: args.slice() };
        let peers = [&mut in_plain, &mut in_tls, &mut again];
        let [plain, tls, again] = found.turns.alternate(args.slices, load, peers).await?;
        let figures = &mut found.figures;
        for (name, figure) in [("cpu", Slice::cpu_us as fn(&Slice) -> f64), ("p50", Slice::p50_us)] {
            figures.add(format!("{name}_vs_plain_at_{in_flight}"), median_ratio(&tls, &plain, figure));
            figures.add(format!("{name}_plain_vs_itself_at_{in_flight}"), median_ratio(&again, &plain, figure));
            figures.add(format!("{name}_us_plain_at_{in_flight}"), median_of(&plain, figure));
            figures.add(format!("{name}_us_tls_at_{in_flight}"), median_of(&tls, figure));
        }
    }
    drop((in_plain, again, in_tls));
    strict.stop().await;
    plain.stop().await;
    Ok(())
}

/// A process of the service, once all of its instances serve.
async fn serve(echo: &Echo) -> Result<Rc<meshwork_harness::process::Process>, Error> {
    let process = echo.spawn_service(SERVICE, &["--endpoints", &ENDPOINTS.to_string()])?;
    echo.serving(SERVICE, ENDPOINTS).await?;
    Ok(Rc::new(process))
}
