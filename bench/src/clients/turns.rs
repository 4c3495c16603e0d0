//! Slices of clients in turn, and what came of all of them.

use std::time::Duration;

use meshwork_caller::{Load, Slice};
use meshwork_harness::report::{Failures, Figures};

use super::{Error, Peer};

/// Connections, and what else the first calls pay for.
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of all slices so far.
#[derive(Default)]
pub(crate) struct Turns {
    /// What failed.
    pub(crate) failures: Failures,
    /// Calls per second of each client, in each round.
    pub(crate) rounds: Vec<Figures>,
}

impl Turns {
    /// Slices of this length of each peer in turn. The order turns round each time, so that no peer always follows the same one.
    pub(crate) async fn alternate<const N: usize>(
        &mut self,
        slices: u64,
        load: Load,
        mut peers: [&mut Peer; N],
    ) -> Result<[Vec<Slice>; N], Error> {
        let in_flight = load.in_flight;
        let mut found = [(); N].map(|()| Vec::new());
        for peer in &mut peers {
            peer.drive(Load { time: load.time.min(WARM_UP), ..load }).await?;
        }
        for round in 0..slices {
            eprint!("\r{in_flight} in flight: {} of {slices}  ", round + 1);
            let mut turn = (0..N).collect::<Vec<_>>();
            if round % 2 == 1 {
                turn.reverse();
            }
            let mut figures = Figures::default();
            for index in turn {
                let slice = peers[index].drive(load).await?;
                let name = peers[index].name();
                let failures = slice.failures.iter();
                self.failures.add_counted(failures.map(|(what, count)| (format!("{name}: {what}"), *count)));
                figures.add(format!("{name}_{in_flight}_per_s"), slice.calls_per_s());
                found[index].push(slice);
            }
            self.rounds.push(figures);
        }
        eprintln!();
        Ok(found)
    }
}
