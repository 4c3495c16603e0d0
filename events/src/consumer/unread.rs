//! Tracks since when there are unread events: how far a reader is behind in time, not only in events.
//!
//! The age of an event counts from when it was decided, if the reader has it in hand, and else from when the reader learnt
//! that it is there. When it was decided is told by another host's wall clock, so that only figures rely on it; health relies on since
//! when the reader knows of it. Pure: times come with the calls.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::outbox::{PARTITIONS, Position};

/// Marks that are kept for each partition. A reader that is further behind than these tell counts newer events as old as the
/// last of them, which its health has long reported.
const MAX_MARKS: usize = 32;

/// What is unread, by partition.
#[derive(Debug)]
pub(super) struct Unread(Vec<Partition>);

#[derive(Clone, Debug, Default)]
struct Partition {
    read: u64,
    /// Ascending, all unread.
    marks: VecDeque<Mark>,
}

/// Events up to a position.
#[derive(Clone, Copy, Debug)]
struct Mark {
    position: u64,
    /// Since when the reader knows of them.
    known: Instant,
    /// Since when they are there, as far as the reader can tell.
    since: Instant,
}

impl Default for Unread {
    fn default() -> Self {
        Self(vec![Partition::default(); PARTITIONS as usize])
    }
}

impl Unread {
    /// The reader learns `now` that there are events up to a position, `since` then.
    pub(super) fn there(&mut self, at: Position, now: Instant, since: Instant) {
        let Some(partition) = self.0.get_mut(at.partition as usize) else { return };
        let known = partition.marks.back().map_or(partition.read, |mark| mark.position);
        if at.position <= known {
            return;
        }
        if partition.marks.len() == MAX_MARKS
            && let Some(last) = partition.marks.back_mut()
        {
            last.position = at.position;
        } else {
            partition.marks.push_back(Mark { position: at.position, known: now, since });
        }
    }

    /// The log ends there, and may have been longer before: its store was restored, or has failed over to an older copy.
    pub(super) fn ends_at(&mut self, head: Position) {
        let Some(partition) = self.0.get_mut(head.partition as usize) else { return };
        for mark in &mut partition.marks {
            mark.position = mark.position.min(head.position);
        }
        let mut before = partition.read;
        partition.marks.retain(|mark| std::mem::replace(&mut before, mark.position) < mark.position);
    }

    /// The first unread event of a partition is in hand, and was decided then.
    pub(super) fn first_is_of(&mut self, partition: u32, decided: Instant) {
        if let Some(mark) = self.0.get_mut(partition as usize).and_then(|partition| partition.marks.front_mut()) {
            mark.since = decided.min(mark.since);
        }
    }

    /// All up to a position is read.
    pub(super) fn read(&mut self, at: Position) {
        let Some(partition) = self.0.get_mut(at.partition as usize) else { return };
        partition.read = partition.read.max(at.position);
        while partition.marks.front().is_some_and(|mark| mark.position <= partition.read) {
            partition.marks.pop_front();
        }
    }

    /// A partition is read from another position on, and the events there are not known yet.
    pub(super) fn begin_again(&mut self, at: Position) {
        if let Some(partition) = self.0.get_mut(at.partition as usize) {
            *partition = Partition { read: at.position, marks: VecDeque::new() };
        }
    }

    /// Since when there is something unread.
    pub(super) fn since(&self) -> Option<Instant> {
        self.first().map(|mark| mark.since).min()
    }

    /// Since when the reader knows of something unread.
    pub(super) fn known(&self) -> Option<Instant> {
        self.first().map(|mark| mark.known).min()
    }

    fn first(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter().filter_map(|partition| partition.marks.front())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(position: u64) -> Position {
        Position { partition: 3, position }
    }

    #[test]
    fn the_oldest_unread_event_is_as_old_as_it_is_known_and_older_if_it_was_decided_before() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut unread = Unread::default();
        let there = |unread: &mut Unread, position, seconds| unread.there(at(position), after(seconds), after(seconds));
        there(&mut unread, 5, 10);
        there(&mut unread, 7, 15);
        there(&mut unread, 7, 20);
        assert_eq!(unread.since(), Some(after(10)));
        unread.first_is_of(3, after(2));
        assert_eq!((unread.since(), unread.known()), (Some(after(2)), Some(after(10))));
        unread.read(at(4));
        assert_eq!(unread.since(), Some(after(2)), "5 is unread");
        unread.read(at(5));
        assert_eq!(unread.since(), Some(after(15)));
        unread.read(at(7));
        assert_eq!(unread.since(), None);
        there(&mut unread, 6, 30);
        assert_eq!(unread.since(), None, "it was read before it was told");
        there(&mut unread, 9, 31);
        there(&mut unread, 12, 32);
        there(&mut unread, 15, 33);
        unread.ends_at(at(10));
        assert_eq!(unread.since(), Some(after(31)));
        unread.read(at(9));
        assert_eq!(unread.since(), Some(after(32)));
        unread.ends_at(at(9));
        assert_eq!(unread.since(), None, "what the log has lost is not unread");
        unread.begin_again(at(0));
        unread.there(at(1), after(40), after(3));
        assert_eq!((unread.since(), unread.known()), (Some(after(3)), Some(after(40))));
    }

    #[test]
    fn what_is_kept_is_bounded_and_never_makes_an_event_younger() {
        let begin = Instant::now();
        let mut unread = Unread::default();
        for position in 1..=1000 {
            let now = begin + Duration::from_secs(position);
            unread.there(at(position), now, now);
        }
        assert_eq!(unread.0[3].marks.len(), MAX_MARKS);
        unread.read(at(999));
        assert!(unread.since().is_some_and(|since| since <= begin + Duration::from_secs(1000)));
    }
}
