//! Which partitions a member is assigned: its share among the members that live, judged by heartbeats.
//!
//! Pure: time comes with every call. A member counts up the heartbeat in its row. A member that has seen a heartbeat change
//! within [`LEASE`], by its own monotonic clock, regards the row's member as alive: no clock is compared with another. A row
//! whose heartbeat was never seen to change is no sign of life, so that a process that starts again after a crash does not
//! wait for its own remains.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::outbox::PARTITIONS;

/// How long a member lives without a heartbeat. The others look every second, so they take its partitions over within about
/// five seconds.
pub(super) const LEASE: Duration = Duration::from_secs(4);
/// How long the row of a dead member is kept. A process that was stopped for longer finds its row deleted, and joins anew.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// The partitions of the member of this rank in a group of `members`.
pub(super) fn share(rank: usize, members: usize) -> BTreeSet<u32> {
    (0..PARTITIONS).filter(|partition| *partition as usize % members == rank).collect()
}

/// Sends the partitions to the member, if they have changed.
pub(super) fn assign(sender: &watch::Sender<BTreeSet<u32>>, share: BTreeSet<u32>) {
    sender.send_if_modified(|partitions| {
        let changed = *partitions != share;
        *partitions = share;
        changed
    });
}

/// One member's assignment: what it sees of its group, and the share that follows from it.
pub(super) struct Assignment {
    me: String,
    others: BTreeMap<String, Seen>,
}

struct Seen {
    heartbeat: i64,
    first_seen: Instant,
    moved: Option<Instant>,
}

impl Assignment {
    pub(super) fn new(me: String) -> Self {
        Self { me, others: BTreeMap::new() }
    }

    /// Takes in the rows as they are now. Returns whether there is a new member.
    pub(super) fn observe(&mut self, now: Instant, rows: impl IntoIterator<Item = (String, i64)>) -> bool {
        let mut before = std::mem::take(&mut self.others);
        let mut newcomer = false;
        for (id, heartbeat) in rows.into_iter().filter(|(id, _)| *id != self.me) {
            let seen = match before.remove(&id) {
                Some(seen) if seen.heartbeat == heartbeat => seen,
                Some(_) => Seen { heartbeat, first_seen: now, moved: Some(now) },
                None => {
                    newcomer = true;
                    Seen { heartbeat, first_seen: now, moved: None }
                }
            };
            self.others.insert(id, seen);
        }
        newcomer
    }

    /// Whether it is unknown of some member whether it lives.
    pub(super) fn has_unknown(&self) -> bool {
        self.others.values().any(|seen| seen.moved.is_none())
    }

    /// The partitions of this member.
    pub(super) fn partitions(&self, now: Instant) -> BTreeSet<u32> {
        let (rank, members) = self.rank(now);
        share(rank, members)
    }

    /// This member's rank among the living, and their number.
    fn rank(&self, now: Instant) -> (usize, usize) {
        let lives = |seen: &Seen| seen.moved.is_some_and(|moved| now - moved < LEASE);
        let living = || self.others.iter().filter(|(_, seen)| lives(seen));
        (living().filter(|(id, _)| **id < self.me).count(), living().count() + 1)
    }

    /// Members whose rows may be deleted, each with its last heartbeat.
    pub(super) fn forgotten(&self, now: Instant) -> Vec<(String, i64)> {
        let silent = self.others.iter().filter(|(_, seen)| now - seen.first_seen > MAX_SILENCE);
        silent.map(|(id, seen)| (id.clone(), seen.heartbeat)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
        rows.iter().map(|(id, heartbeat)| ((*id).to_owned(), *heartbeat)).collect()
    }

    #[test]
    fn a_member_lives_as_long_as_its_beat_moves() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut assignment = Assignment::new("b".into());

        assert!(assignment.observe(after(0), rows(&[("a", 7), ("b", 1), ("c", 3)])), "both are new");
        assert_eq!(assignment.rank(after(0)), (0, 1), "remains of dead members hold nothing up");
        assert!(!assignment.observe(after(50), rows(&[("a", 8), ("b", 2), ("c", 3)])));
        assert_eq!(assignment.rank(after(50)), (1, 2), "a lives");
        assert!(assignment.has_unknown());

        assignment.observe(after(4000), rows(&[("a", 8), ("b", 3), ("c", 4)]));
        assert_eq!(assignment.rank(after(4040)), (1, 3), "c lives too");
        assert_eq!(assignment.rank(after(4060)), (0, 2), "a has been silent for its lease");
        assignment.observe(after(4100), rows(&[("b", 4)]));
        assert_eq!(assignment.rank(after(4100)), (0, 1), "a member that has left is gone at once");
    }

    #[test]
    fn only_rows_that_stood_still_for_long_are_forgotten() {
        let start = Instant::now();
        let mut assignment = Assignment::new("b".into());
        assignment.observe(start, rows(&[("a", 1), ("c", 1)]));
        assignment.observe(start + MAX_SILENCE, rows(&[("a", 1), ("c", 2)]));
        assert_eq!(assignment.forgotten(start + MAX_SILENCE), []);
        assert_eq!(assignment.forgotten(start + MAX_SILENCE + LEASE), rows(&[("a", 1)]));
    }
}
