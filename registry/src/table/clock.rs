//! The clock of the leases: it stops while the registry's process is stopped.
//!
//! A registry that was suspended (SIGSTOP, a frozen virtual machine, a starved host) wakes to a table full of leases that
//! no instance could renew, because none could reach it. Removing them would empty the mesh because the registry was absent.
//! So the expiry task calls at least every [`PULSE`]; if the calls stop for longer, the time without them does not count.
//! There is no other self-preservation: instances that die while the registry runs are removed on time, however
//! many they are.

use std::time::Duration;

/// The expiry task looks at the table at least this often. Shorter than the shortest lease (1 s), so that a task asleep
/// wakes before a lease that was given meanwhile can end; long enough to cost nothing.
pub const PULSE: Duration = Duration::from_millis(500);

/// A gap up to this is ordinary lateness; a longer one is an absence.
const MAX_GAP: Duration = PULSE.saturating_mul(2);

/// Time as the leases see it.
#[derive(Debug, Default)]
pub struct Clock {
    last_call: Duration,
    lost: Duration,
}

impl Clock {
    /// Takes note that the process runs at `now`, the time since its start. Earlier times than before are ignored.
    pub fn advance(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last_call);
        if gap > MAX_GAP {
            self.lost += gap - PULSE;
        }
        self.last_call = self.last_call.max(now);
    }

    /// The time that leases are measured in: since the start, without absences.
    pub fn now(&self) -> Duration {
        self.last_call - self.lost
    }

    /// When the caller's clock will show what this one calls `at`.
    pub fn to_caller(&self, at: Duration) -> Duration {
        at + self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_lateness_counts_and_an_absence_does_not() {
        let mut clock = Clock::default();
        clock.advance(MAX_GAP);
        assert_eq!(clock.now(), MAX_GAP);

        clock.advance(MAX_GAP + Duration::from_secs(60));
        assert_eq!(clock.now(), MAX_GAP + PULSE, "of a minute's absence one pulse counts");
        assert_eq!(clock.to_caller(clock.now()), MAX_GAP + Duration::from_secs(60));
    }

    #[test]
    fn it_never_runs_backwards() {
        let mut clock = Clock::default();
        clock.advance(Duration::from_millis(400));
        clock.advance(Duration::from_millis(300));
        assert_eq!(clock.now(), Duration::from_millis(400));
    }
}
