//! Who lives, judged by beats. Pure: time comes with every call.
//!
//! A member counts up a beat in its row. Whoever has seen a beat change within [`LEASE`], by its own monotonic clock,
//! regards that member as alive: no clock is compared with another. A row whose beat was never seen to change is
//! no sign of life, so that a process that starts again after a crash does not wait for its own remains.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// How long a member lives without a sign. With the beat of a second at which the others look, its partitions are taken over
/// within five seconds or so.
pub(super) const LEASE: Duration = Duration::from_secs(4);
/// How long the row of a dead member is kept: a process that was stopped that long finds itself forgotten, and joins anew.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// The members of one group as one of them sees them.
pub(super) struct Roster {
    me: String,
    others: BTreeMap<String, Seen>,
}

struct Seen {
    beat: i64,
    first_seen: Instant,
    moved: Option<Instant>,
}

impl Roster {
    pub(super) fn new(me: String) -> Self {
        Self { me, others: BTreeMap::new() }
    }

    /// Takes in the rows as they are now. Says whether there is a member that was not there before.
    pub(super) fn observe(&mut self, now: Instant, rows: impl IntoIterator<Item = (String, i64)>) -> bool {
        let mut before = std::mem::take(&mut self.others);
        let mut newcomer = false;
        for (id, beat) in rows.into_iter().filter(|(id, _)| *id != self.me) {
            let seen = match before.remove(&id) {
                Some(seen) if seen.beat == beat => seen,
                Some(_) => Seen { beat, first_seen: now, moved: Some(now) },
                None => {
                    newcomer = true;
                    Seen { beat, first_seen: now, moved: None }
                }
            };
            self.others.insert(id, seen);
        }
        newcomer
    }

    /// Whether there is a member of which it is not known whether it lives.
    pub(super) fn has_unknown(&self) -> bool {
        self.others.values().any(|seen| seen.moved.is_none())
    }

    /// This member's rank among the living, and how many they are.
    pub(super) fn rank(&self, now: Instant) -> (usize, usize) {
        let lives = |seen: &Seen| seen.moved.is_some_and(|moved| now - moved < LEASE);
        let living = || self.others.iter().filter(|(_, seen)| lives(seen));
        (living().filter(|(id, _)| **id < self.me).count(), living().count() + 1)
    }

    /// Members whose rows may go, with the beat at which they stand.
    pub(super) fn forgotten(&self, now: Instant) -> Vec<(String, i64)> {
        let silent = self.others.iter().filter(|(_, seen)| now - seen.first_seen > MAX_SILENCE);
        silent.map(|(id, seen)| (id.clone(), seen.beat)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
        rows.iter().map(|(id, beat)| ((*id).to_owned(), *beat)).collect()
    }

    #[test]
    fn a_member_lives_as_long_as_its_beat_moves() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut roster = Roster::new("b".into());

        assert!(roster.observe(after(0), rows(&[("a", 7), ("b", 1), ("c", 3)])), "both are new");
        assert_eq!(roster.rank(after(0)), (0, 1), "remains of dead members hold nothing up");
        assert!(!roster.observe(after(50), rows(&[("a", 8), ("b", 2), ("c", 3)])));
        assert_eq!(roster.rank(after(50)), (1, 2), "a lives");
        assert!(roster.has_unknown());

        roster.observe(after(4000), rows(&[("a", 8), ("b", 3), ("c", 4)]));
        assert_eq!(roster.rank(after(4040)), (1, 3), "c lives too");
        assert_eq!(roster.rank(after(4060)), (0, 2), "a has been silent for its lease");
        roster.observe(after(4100), rows(&[("b", 4)]));
        assert_eq!(roster.rank(after(4100)), (0, 1), "who has left is gone at once");
    }

    #[test]
    fn only_rows_that_stood_still_for_long_are_forgotten() {
        let start = Instant::now();
        let mut roster = Roster::new("b".into());
        roster.observe(start, rows(&[("a", 1), ("c", 1)]));
        roster.observe(start + MAX_SILENCE, rows(&[("a", 1), ("c", 2)]));
        assert_eq!(roster.forgotten(start + MAX_SILENCE), []);
        assert_eq!(roster.forgotten(start + MAX_SILENCE + LEASE), rows(&[("a", 1)]));
    }
}
