//! Keeps the last events of every partition in memory, so that a subscriber that keeps up costs no query.
//!
//! It is only a cache of the log: it holds a contiguous run for each partition or nothing, and a subscriber that wants what it
//! does not hold reads the database. Pure; [`Outbox`](super::Outbox) guards it with a lock.

use std::{collections::VecDeque, sync::Arc};

use meshwork::contract::meshwork::event::v1::Event;

use super::{LogPoint, PARTITIONS, Position};

/// Events kept for each partition: some 100 ms of a busy log, and 10 MiB at most in all with events of 600 bytes.
const CAPACITY: usize = 1024;

/// What became of an event that was to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// It is the head of its partition.
    Now,
    /// It was published already: read from the database, or by a faster writer.
    Before,
    /// Events before it are missing: they, and it, must be read from the database.
    Gap,
}

pub(super) struct Tail {
    partitions: Vec<VecDeque<Arc<Event>>>,
    heads: Vec<LogPoint>,
}

impl Tail {
    /// An empty tail behind `heads`, one for each partition.
    pub(super) fn new(heads: Vec<LogPoint>) -> Self {
        assert_eq!(heads.len(), PARTITIONS as usize, "one head for each partition");
        Self { partitions: vec![VecDeque::new(); heads.len()], heads }
    }

    /// Takes in a committed event, if it is the next of its partition. The head never passes over what another writer has
    /// committed and not published yet.
    pub(super) fn publish(&mut self, event: Arc<Event>) -> Published {
        let index = event.partition as usize;
        let (events, head) = (&mut self.partitions[index], &mut self.heads[index]);
        if event.position <= head.at.position {
            return Published::Before;
        }
        if event.position != head.at.position + 1 {
            return Published::Gap;
        }
        *head = LogPoint::of(&event);
        events.push_back(event);
        if events.len() > CAPACITY {
            events.pop_front();
        }
        Published::Now
    }

    /// The last event of each partition that was published.
    pub(super) fn heads(&self) -> &[LogPoint] {
        &self.heads
    }

    /// The event at a position, if it is held.
    pub(super) fn at(&self, at: Position) -> Option<&Arc<Event>> {
        let events = self.partitions.get(at.partition as usize)?;
        let index = at.position.checked_sub(events.front()?.position)?;
        events.get(usize::try_from(index).ok()?)
    }

    /// Up to `limit` events after a position; `None` if the database must be asked.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<Arc<Event>>> {
        let events = self.partitions.get(after.partition as usize)?;
        if after.position >= self.heads[after.partition as usize].at.position {
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
        let mut tail = Tail::new((0..PARTITIONS).map(LogPoint::begin).collect());
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
        let mut tail = tail([1, 2]);
        let mut publish = |position| tail.publish(Arc::new(Event { partition: 3, position, ..Event::default() }));
        assert_eq!([5, 3, 3, 4, 5].map(&mut publish), {
            use Published::{Before, Gap, Now};
            [Gap, Now, Before, Now, Now]
        });
        assert_eq!(after(&tail, 2), Some(vec![3, 4, 5]));
        assert_eq!(tail.heads()[3].at.position, 5);
    }

    #[test]
    fn memory_is_bounded() {
        let tail = tail(1..=CAPACITY as u64 + 5);
        assert_eq!(after(&tail, 4), None);
        assert_eq!(after(&tail, 5).map(|events| events[0]), Some(6));
    }
}
