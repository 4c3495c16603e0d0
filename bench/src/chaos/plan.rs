//! Which fault happens to whom and when: a pure function of seed, length and store, so that a failing seed can be replayed.
//!
//! Nothing happens to a target that still suffers from the fault before. How long a process takes to come back is not
//! planned: whoever carries the plan out waits for it.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::shop_processes::Store;

/// Pauses between two faults, in milliseconds. On average half of what makes 20 a minute, since some of them come late.
const PAUSE_MS: std::ops::Range<u64> = 800..2_200;
/// Before the first fault: the load has begun.
const LEAD: Duration = Duration::from_secs(2);
/// How long a killed process stays away.
const DOWN_MS: std::ops::Range<u64> = 100..2_500;
/// How long a process or a connection stands still, as most do: clients notice by their deadlines.
const SHORT_STALL_MS: std::ops::Range<u64> = 300..4_000;
/// Longer than the lease of a member that reads partitions (5 s): others take them over, and a zombie comes back.
const LONG_STALL_MS: std::ops::Range<u64> = 6_000..9_000;
/// Longer than the lease in the registry (10 s): the instance is forgotten, and comes back.
const LONGEST_STALL_MS: std::ops::Range<u64> = 11_000..14_000;
/// What a process needs to come back to its work after a fault.
const RECOVERY: Duration = Duration::from_millis(1_500);
/// What the database server needs, which reads its log and syncs its files first; and its clients, to come back to it.
const DATABASE_RECOVERY: Duration = Duration::from_secs(12);

/// Who suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The registry's process.
    Registry,
    /// The service's process of this index, from 0, over all services.
    Service(usize),
    /// The PostgreSQL server.
    Postgres,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; started again after so long.
    Kill(Duration),
    /// SIGSTOP; SIGCONT after so long.
    Pause(Duration),
    /// SIGTERM, and started again once it has drained.
    Replace,
    /// All connections to it break.
    Cut,
    /// No byte gets to it or from it for so long, while its own calls to others go on.
    Stall(Duration),
    /// The database server ends as in a crash, and recovers.
    Crash,
}

impl Fault {
    /// What it is counted as.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kills",
            Self::Pause(_) => "pauses",
            Self::Replace => "replacements",
            Self::Cut => "cuts",
            Self::Stall(_) => "stalls",
            Self::Crash => "postgres_restarts",
        }
    }

    fn lasts(self) -> Duration {
        match self {
            Self::Kill(time) | Self::Pause(time) | Self::Stall(time) => time,
            Self::Replace | Self::Cut | Self::Crash => Duration::ZERO,
        }
    }
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Since the load began.
    pub(super) at: Duration,
    pub(super) target: Target,
    pub(super) fault: Fault,
}

/// The faults of `length`, in the order of their times, for a shop with so many processes of services.
pub(super) fn plan(seed: u64, length: Duration, store: Store, services: usize) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut targets: Vec<Target> = (0..services).map(Target::Service).collect();
    targets.push(Target::Registry);
    if store == Store::Postgres {
        targets.push(Target::Postgres);
    }
    let mut busy: Vec<Duration> = vec![Duration::ZERO; targets.len()];
    let (mut plan, mut at) = (Vec::new(), LEAD);
    while at < length {
        let free: Vec<usize> = (0..targets.len()).filter(|index| busy[*index] <= at).collect();
        if !free.is_empty() {
            let index = free[rng.random_range(0..free.len())];
            let fault = fault(targets[index], &mut rng);
            let recovery = if targets[index] == Target::Postgres { DATABASE_RECOVERY } else { RECOVERY };
            busy[index] = at + fault.lasts() + recovery;
            plan.push(Planned { at, target: targets[index], fault });
        }
        at += Duration::from_millis(rng.random_range(PAUSE_MS));
    }
    plan
}

fn fault(target: Target, rng: &mut StdRng) -> Fault {
    let mut time = |range| Duration::from_millis(rng.random_range(range));
    let down = time(DOWN_MS);
    let stall = match time(0..10).as_millis() {
        0..7 => time(SHORT_STALL_MS),
        7..9 => time(LONG_STALL_MS),
        _ => time(LONGEST_STALL_MS),
    };
    match (target, rng.random_range(0..10)) {
        (Target::Postgres, _) => Fault::Crash,
        (Target::Registry, 0..6) => Fault::Kill(down),
        (Target::Registry, 6..8) => Fault::Replace,
        (Target::Registry, _) => Fault::Pause(stall),
        (Target::Service(_), 0..4) => Fault::Kill(down),
        (Target::Service(_), 4..6) => Fault::Pause(stall),
        (Target::Service(_), 6) => Fault::Replace,
        (Target::Service(_), 7) => Fault::Cut,
        (Target::Service(_), _) => Fault::Stall(stall),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const MINUTES: u32 = 3;
    const LENGTH: Duration = Duration::from_secs(60 * MINUTES as u64);

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        for store in [Store::Sqlite, Store::Postgres] {
            assert_eq!(plan(7, LENGTH, store, 5), plan(7, LENGTH, store, 5));
            assert_ne!(plan(7, LENGTH, store, 5), plan(8, LENGTH, store, 5));
        }
    }

    #[test]
    fn every_seed_has_more_than_20_faults_a_minute_of_every_kind_and_all_within_the_time() {
        for seed in 0..50 {
            for (store, services, kinds) in [(Store::Sqlite, 4, 5), (Store::Postgres, 7, 6)] {
                let plan = plan(seed, LENGTH, store, services);
                assert!(plan.len() > 22 * MINUTES as usize, "seed {seed} has {}", plan.len());
                assert!(plan.iter().all(|planned| planned.at < LENGTH));
                let found: HashSet<_> = plan.iter().map(|planned| planned.fault.name()).collect();
                assert_eq!(found.len(), kinds, "seed {seed}: {found:?}");
                let longest = plan.iter().map(|planned| planned.fault.lasts()).max();
                assert!(longest > Some(Duration::from_secs(6)), "no zombie in seed {seed}");
            }
        }
    }

    #[test]
    fn nothing_happens_to_a_target_that_still_suffers() {
        let plan = plan(7, LENGTH, Store::Postgres, 7);
        for (index, planned) in plan.iter().enumerate() {
            let next = plan[index + 1..].iter().find(|next| next.target == planned.target);
            assert!(next.is_none_or(|next| next.at >= planned.at + planned.fault.lasts()), "{planned:?} {next:?}");
        }
    }
}
