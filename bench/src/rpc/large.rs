//! The client under measure with a service of a thousand endpoints, against itself with three.

use std::time::Duration;

use meshwork_caller::{Load, Slice};

use super::{Bench, Error, peers::Peer, ratios::ratio};
use crate::echo::SERVICE;

/// A service far larger than subsetting would let a client see.
const MANY: usize = 1000;
/// The name of the large service.
const MANY_SERVICE: &str = "echo-many";
/// For a client to connect to all of them.
const WARM_UP: Duration = Duration::from_secs(3);

impl Bench<'_> {
    pub(super) async fn with_many_endpoints(&mut self) -> Result<(), Error> {
        let _process = self.echo.spawn(&["--service", MANY_SERVICE, "--endpoints", &MANY.to_string()])?;
        self.echo.serving(MANY_SERVICE, MANY).await?;
        let mut few = self.meshwork(SERVICE, SERVICE)?;
        let mut many = self.meshwork_to_all(MANY_SERVICE).await?;
        let [few, many] = self.alternate(self.args.slices, 1, [&mut few, &mut many]).await?;
        self.found.figures.add("cost_1000_vs_3_endpoints", ratio(&many, &few, time_per_call));
        self.found.figures.add("client_cpu_1000_vs_3_endpoints", ratio(&many, &few, Slice::cpu_us));
        Ok(())
    }

    /// The client under measure, to all endpoints of a large service, once it is connected to them.
    async fn meshwork_to_all(&self, service: &str) -> Result<Peer, Error> {
        let mut peer = Peer::meshwork_to_all(&self.callers.now, service, self.echo, service)?;
        peer.drive(Load { in_flight: 1, time: WARM_UP }).await?;
        Ok(peer)
    }
}

fn time_per_call(slice: &Slice) -> f64 {
    1.0 / slice.calls_per_s()
}
