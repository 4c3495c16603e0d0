//! The last events of every partition, in memory, so that a subscriber that keeps up costs no query.
//!
//! Only a cache of the log: it holds a contiguous run for each partition or nothing, and whoever asks for what it does
//! not hold reads the database. Pure; [`Outbox`](super::Outbox) guards it with a lock.

use std::{collections::VecDeque, sync::Arc};

use super::{PARTITIONS, Position};
use crate::contract::meshwork::event::v1::Event;

/// Events kept for each partition: some 100 ms of a busy log, and 10 MiB at most in all with events of 600 bytes.
const CAPACITY: usize = 1024;

pub(super) struct Tail {
    partitions: Vec<VecDeque<Arc<Event>>>,
    heads: Vec<u64>,
}

impl Tail {
    /// An empty tail behind `heads`, one for each partition.
    pub(super) fn new(heads: Vec<u64>) -> Self {
        assert_eq!(heads.len(), PARTITIONS as usize, "one head for each partition");
        Self { partitions: vec![VecDeque::new(); heads.len()], heads }
    }

    /// Takes in a committed event. Two writers of one process may publish in another order than they committed: what
    /// is older than the run is left to the database, what leaves a gap begins a new run.
    pub(super) fn publish(&mut self, event: Arc<Event>) {
        let index = event.partition as usize;
        let (events, head) = (&mut self.partitions[index], &mut self.heads[index]);
        if event.position <= *head {
            return;
        }
        if event.position != *head + 1 {
            events.clear();
        }
        *head = event.position;
        events.push_back(event);
        if events.len() > CAPACITY {
            events.pop_front();
        }
    }

    pub(super) fn heads(&self) -> &[u64] {
        &self.heads
    }

    /// Up to `limit` events after a position; `None` if the database must be asked.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<Arc<Event>>> {
        let events = self.partitions.get(after.partition as usize)?;
        if after.position >= self.heads[after.partition as usize] {
            return Some(Vec::new());
        }
        let first = events.front()?.position;
        let skip = usize::try_from((after.position + 1).checked_sub(first)?).ok()?;
        Some(events.iter().skip(skip).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(positions: impl IntoIterator<Item = u64>) -> Tail {
        let mut tail = Tail::new(vec![0; PARTITIONS as usize]);
        for position in positions {
            tail.publish(Arc::new(Event { partition: 3, position, ..Event::default() }));
        }
        tail
    }

    fn after(tail: &Tail, position: u64) -> Option<Vec<u64>> {
        let events = tail.after(Position { partition: 3, position }, 10)?;
        Some(events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn a_reader_that_keeps_up_is_served_from_memory() {
        let tail = tail(1..=3);
        assert_eq!(after(&tail, 0), Some(vec![1, 2, 3]));
        assert_eq!(after(&tail, 2), Some(vec![3]));
        assert_eq!(after(&tail, 3), Some(vec![]));
    }

    #[test]
    fn a_gap_is_never_served_as_if_it_were_none() {
        let tail = tail([1, 2, 5, 6, 3, 4]);
        assert_eq!(after(&tail, 2), None, "3 and 4 are not held: ask the database");
        assert_eq!(after(&tail, 4), Some(vec![5, 6]));
        assert_eq!(tail.heads()[3], 6);
    }

    #[test]
    fn memory_is_bounded() {
        let tail = tail(1..=CAPACITY as u64 + 5);
        assert_eq!(after(&tail, 4), None);
        assert_eq!(after(&tail, 5).map(|events| events[0]), Some(6));
    }
}
