//! The client under measure with a service of a thousand endpoints, against itself with three.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use meshwork_caller::{Load, Slice};
use tokio::task::spawn_blocking;

use super::{Bench, Error, churn};
use meshwork_harness::process::Process;

use crate::{
    clients::{Peer, ratios::ratio},
    echo::SERVICE,
};

/// A service far larger than subsetting would let a client see.
const MANY: usize = 1000;
/// The name of the large service.
const MANY_SERVICE: &str = "echo-many";
/// The name of the large service whose endpoints are restarted.
const CHURNING_SERVICE: &str = "echo-churning";
/// Endpoints of the churning service that serve at any time: the others drain, or join.
const MANY_WHILE_CHURNING: usize = MANY - MANY / 20;
/// Endpoints of the churning service that are restarted each second: each leaves and joins, which is two changes of the set.
const RESTARTS_PER_S: u64 = 25;
/// For a client to connect to all of them.
const WARM_UP: Duration = Duration::from_secs(3);
/// For processes to start, and whatever else comes before and between the slices.
const MARGIN: Duration = Duration::from_secs(60);
/// For a thousand endpoints to drain and leave.
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl Bench<'_> {
    pub(super) async fn with_many_endpoints(&mut self) -> Result<(), Error> {
        let process = self.echo.spawn(&["--service", MANY_SERVICE, "--endpoints", &MANY.to_string()])?;
        self.echo.serving(MANY_SERVICE, MANY).await?;
        let mut few = self.meshwork(SERVICE, SERVICE)?;
        let mut many = self.meshwork_to_all(MANY_SERVICE).await?;
        let slices = self.alternate(self.args.slices, 1, [&mut few, &mut many]).await?;
        self.add_figures("1000", &slices);
        self.stop(process, MANY_SERVICE).await
    }

    pub(super) async fn with_many_endpoints_that_churn(&mut self) -> Result<(), Error> {
        let time = (self.args.slice() * 2).saturating_mul(self.args.slices as u32) + MARGIN;
        let (many, restarts) = (MANY.to_string(), (RESTARTS_PER_S * time.as_secs()).to_string());
        let churning = ["--restarts", &restarts, "--restarts-per-s", &RESTARTS_PER_S.to_string()];
        let process =
            self.echo.spawn(&[&["--service", CHURNING_SERVICE, "--endpoints", &many], &churning[..]].concat())?;
        self.echo.serving(CHURNING_SERVICE, MANY_WHILE_CHURNING).await?;
        let mut few = self.meshwork(SERVICE, SERVICE)?;
        let mut many = self.meshwork_to_all(CHURNING_SERVICE).await?;
        let (changes, from) = (Cell::new(0), Instant::now());
        let counted = churn::count(self.echo.mesh().endpoints(CHURNING_SERVICE), &changes);
        let slices = tokio::select! {
            slices = self.alternate(self.args.slices, 1, [&mut few, &mut many]) => slices?,
            never = counted => match never {},
        };
        self.found.figures.add("changes_per_s_churning", changes.get() as f64 / from.elapsed().as_secs_f64());
        self.add_figures("1000_churning", &slices);
        self.stop(process, CHURNING_SERVICE).await
    }

    /// What the slices with three endpoints and those with the large service say.
    fn add_figures(&mut self, large: &str, [few, many]: &[Vec<Slice>; 2]) {
        let figures = &mut self.found.figures;
        figures.add(format!("cost_{large}_vs_3_endpoints"), ratio(many, few, time_per_call));
        figures.add(format!("client_cpu_{large}_vs_3_endpoints"), ratio(many, few, Slice::cpu_us));
        figures.add(format!("p50_{large}_vs_3_endpoints"), ratio(many, few, Slice::p50_us));
        figures.add(format!("p99_{large}_vs_3_endpoints"), ratio(many, few, Slice::p99_us));
    }

    /// The client under measure, to all endpoints of a large service, once it is connected to them.
    async fn meshwork_to_all(&self, service: &str) -> Result<Peer, Error> {
        let mut peer = Peer::meshwork_to_all(&self.callers.now, service, self.echo, service)?;
        peer.drive(Load { in_flight: 1, time: WARM_UP }).await?;
        Ok(peer)
    }

    /// Lets a large service leave the mesh, so that nothing of it happens in the middle of what is measured next.
    async fn stop(&self, process: Process, service: &str) -> Result<(), Error> {
        let stopped = spawn_blocking(move || process.terminate(STOP_LIMIT)).await;
        stopped.expect("it does not panic, and the runtime lives on")?;
        Ok(self.echo.gone(service).await?)
    }
}

fn time_per_call(slice: &Slice) -> f64 {
    1.0 / slice.calls_per_s()
}
