//! Which fault hits which target, and when: a pure function of seed, length and store, so that a seed can be replayed.
//!
//! No fault hits a target that still suffers from the one before. How long a process takes to come back is not planned:
//! the code that carries out the plan waits for it.

use std::time::Duration;

use meshwork_harness::shop_processes::Store;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

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
/// How long the database server takes no writes.
const READ_ONLY_MS: std::ops::Range<u64> = 4_000..7_000;
/// How long a database's files are missing.
const REMOVED_MS: std::ops::Range<u64> = 1_000..4_000;
/// How often the orders' database is set back: reading it back, and reconciling, take the better part of a minute.
const RESTORE_INTERVAL: Duration = Duration::from_secs(180);
/// When in such an interval that begins.
const RESTORE_MS: std::ops::Range<u64> = 25_000..45_000;
/// What a restore needs to be over before the end.
const RESTORE_TIME: Duration = Duration::from_secs(60);
/// What a process needs to come back to its work after a fault.
const RECOVERY: Duration = Duration::from_millis(1_500);
/// What the database server needs, which reads its log and syncs its files first; and its clients, to come back to it.
const DATABASE_RECOVERY: Duration = Duration::from_secs(12);

/// The target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The registry's process of this index, from 0.
    Registry(usize),
    /// The service's process of this index, from 0, over all services.
    Service(usize),
    /// The PostgreSQL server.
    Postgres,
    /// The database of orders.
    Orders,
}

/// The possible targets.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) store: Store,
    pub(super) registries: usize,
    /// The service of each process.
    pub(super) services: Vec<&'static str>,
}

impl Shape {
    /// Whether the process of this index keeps its data in a file.
    fn has_file(&self, index: usize) -> bool {
        self.store == Store::Sqlite || self.services[index] == "query"
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; started again after this long.
    Kill(Duration),
    /// SIGSTOP; SIGCONT after this long.
    Pause(Duration),
    /// SIGTERM, and started again once it has drained.
    Replace,
    /// All connections to it break.
    Cut,
    /// No byte gets to it or from it for this long, while its own calls to others go on.
    Stall(Duration),
    /// The database server ends as in a crash, and recovers.
    Crash,
    /// The database server ends its sessions, and takes no writes for this long.
    ReadOnly(Duration),
    /// The files of its database are moved away; after this long it is killed, they are put back, and it is restarted.
    Remove(Duration),
    /// The database is set back to a backup, 10 s and 1,000 orders old, and the mesh is reconciled.
    Restore,
    /// SIGTERM, and started again as another release.
    Move(Release),
}

/// Which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Those of this commit.
    New,
    /// Those of `--old`.
    Old,
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
            Self::ReadOnly(_) => "read_only",
            Self::Remove(_) => "removals",
            Self::Restore => "restores",
            Self::Move(Release::New) => "upgrades",
            Self::Move(Release::Old) => "downgrades",
        }
    }

    fn lasts(self) -> Duration {
        match self {
            Self::Kill(time) | Self::Pause(time) | Self::Stall(time) | Self::ReadOnly(time) | Self::Remove(time) => {
                time
            }
            Self::Replace | Self::Cut | Self::Crash | Self::Restore | Self::Move(_) => Duration::ZERO,
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

/// The faults of `length`, in the order of their times.
pub(super) fn plan(seed: u64, length: Duration, shape: &Shape) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut targets: Vec<Target> = (0..shape.services.len()).map(Target::Service).collect();
    targets.extend((0..shape.registries).map(Target::Registry));
    if shape.store == Store::Postgres {
        targets.push(Target::Postgres);
    }
    let mut busy: Vec<Duration> = vec![Duration::ZERO; targets.len()];
    let (mut plan, mut at) = (Vec::new(), LEAD);
    while at < length {
        let free: Vec<usize> = (0..targets.len()).filter(|index| busy[*index] <= at).collect();
        if !free.is_empty() {
            let index = free[rng.random_range(0..free.len())];
            let fault = fault(targets[index], shape, &mut rng);
            let recovery = if targets[index] == Target::Postgres { DATABASE_RECOVERY } else { RECOVERY };
            busy[index] = at + fault.lasts() + recovery;
            plan.push(Planned { at, target: targets[index], fault });
        }
        at += Duration::from_millis(rng.random_range(PAUSE_MS));
    }
    let mut interval = Duration::ZERO;
    while interval < length {
        let at = interval + Duration::from_millis(rng.random_range(RESTORE_MS));
        if at + RESTORE_TIME <= length {
            plan.push(Planned { at, target: Target::Orders, fault: Fault::Restore });
        }
        interval += RESTORE_INTERVAL;
    }
    plan.sort_by_key(|planned| planned.at);
    plan
}

/// Instead of faults: every process becomes one of this release, one after the other, and then one of the old release again.
pub(super) fn moves(length: Duration, shape: &Shape) -> Vec<Planned> {
    let registries = (0..shape.registries).map(Target::Registry);
    let targets: Vec<Target> = registries.chain((0..shape.services.len()).map(Target::Service)).collect();
    let step = length.saturating_sub(LEAD) / u32::try_from(2 * targets.len()).expect("a handful");
    let moves = [Release::New, Release::Old].into_iter().flat_map(|release| targets.iter().map(move |t| (*t, release)));
    let planned =
        |(index, (target, release)): (u32, _)| Planned { at: LEAD + step * index, target, fault: Fault::Move(release) };
    (0..).zip(moves).map(planned).collect()
}

fn fault(target: Target, shape: &Shape, rng: &mut StdRng) -> Fault {
    let mut time = |range| Duration::from_millis(rng.random_range(range));
    let (down, read_only, removed) = (time(DOWN_MS), time(READ_ONLY_MS), time(REMOVED_MS));
    let long = time(LONGEST_STALL_MS);
    let stall = match time(0..10).as_millis() {
        0..7 => time(SHORT_STALL_MS),
        7..9 => time(LONG_STALL_MS),
        _ => time(LONGEST_STALL_MS),
    };
    match (target, rng.random_range(0..10)) {
        (Target::Orders, _) => Fault::Restore,
        (Target::Postgres, 0..6) => Fault::Crash,
        (Target::Postgres, _) => Fault::ReadOnly(read_only),
        (Target::Registry(_), 0..4) => Fault::Kill(down),
        // Its instances' leases run out meanwhile, and newcomers register elsewhere.
        (Target::Registry(_), 4..6) => Fault::Kill(long),
        (Target::Registry(_), 6..8) => Fault::Replace,
        (Target::Registry(_), _) => Fault::Pause(stall),
        (Target::Service(_), 0..3) => Fault::Kill(down),
        (Target::Service(_), 3..5) => Fault::Pause(stall),
        (Target::Service(_), 5) => Fault::Replace,
        (Target::Service(_), 6) => Fault::Cut,
        (Target::Service(index), 7) if shape.has_file(index) => Fault::Remove(removed),
        (Target::Service(_), _) => Fault::Stall(stall),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const MINUTES: u32 = 3;
    const LENGTH: Duration = Duration::from_secs(60 * MINUTES as u64);

    fn shape(store: Store) -> Shape {
        let services = match store {
            Store::Sqlite => vec!["customer", "order", "query", "query"],
            Store::Postgres => vec!["customer", "customer", "order", "order", "order", "query", "query"],
        };
        Shape { store, registries: 2, services }
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        for shape in [Store::Sqlite, Store::Postgres].map(shape) {
            assert_eq!(plan(7, LENGTH, &shape), plan(7, LENGTH, &shape));
            assert_ne!(plan(7, LENGTH, &shape), plan(8, LENGTH, &shape));
        }
    }

    #[test]
    fn every_seed_has_more_than_20_faults_a_minute_of_every_kind_and_all_within_the_time() {
        for seed in 1..50 {
            for (store, kinds) in [(Store::Sqlite, 7), (Store::Postgres, 9)] {
                let plan = plan(seed, LENGTH, &shape(store));
                assert!(plan.len() > 22 * MINUTES as usize, "seed {seed} has {}", plan.len());
                assert!(plan.iter().all(|planned| planned.at < LENGTH));
                assert!(plan.is_sorted_by_key(|planned| planned.at));
                let found: HashSet<_> = plan.iter().map(|planned| planned.fault.name()).collect();
                assert!(found.len() >= kinds - 1, "seed {seed} of {store:?}: {found:?}");
                assert!(found.contains("restores"));
                let longest = plan.iter().map(|planned| planned.fault.lasts()).max();
                assert!(longest > Some(Duration::from_secs(6)), "no zombie in seed {seed}");
            }
        }
    }

    #[test]
    fn nothing_happens_to_a_target_that_still_suffers() {
        let plan = plan(7, LENGTH, &shape(Store::Postgres));
        for (index, planned) in plan.iter().enumerate() {
            let next = plan[index + 1..].iter().find(|next| next.target == planned.target);
            assert!(next.is_none_or(|next| next.at >= planned.at + planned.fault.lasts()), "{planned:?} {next:?}");
        }
    }

    #[test]
    fn every_process_is_moved_one_after_the_other_and_then_moved_back() {
        let shape = shape(Store::Sqlite);
        let moves = moves(LENGTH, &shape);
        assert_eq!(moves.len(), 2 * (shape.services.len() + shape.registries));
        let (there, back) = moves.split_at(moves.len() / 2);
        assert!(there.iter().all(|planned| planned.fault == Fault::Move(Release::New)));
        assert!(back.iter().all(|planned| planned.fault == Fault::Move(Release::Old)));
        let targets = |moves: &[Planned]| moves.iter().map(|planned| planned.target).collect::<Vec<_>>();
        assert_eq!(targets(there), targets(back));
        assert!(moves.windows(2).all(|two| two[0].at < two[1].at) && moves.iter().all(|planned| planned.at < LENGTH));
    }
}
