//! Which orders are overdue, while the wall clock is set under a running process.
//!
//! A deadline is stored as wall time, so that it holds over restarts, and what is overdue is one question to the store. But a wall
//! clock is set: by an hour, by NTP after a start, by hand. An order that waits meanwhile keeps the time that it had left: when
//! the two clocks part, each order that was stored before is given a deadline by the monotonic clock, once, and is held to that.
//! What is stored afterwards is in the new time, and again the store's matter.

use std::{collections::BTreeMap, time::Duration};

use meshwork_shop::now_ms;
use tokio::time::Instant;
use uuid::Uuid;

/// The clocks may part by this much before that counts: more than NTP corrects without setting the clock, or the pause between
/// reading one and reading the other, and less than a deadline that makes sense.
const MAX_DRIFT_MS: i64 = 1_000;

/// Both clocks at one moment, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since the Unix epoch.
    pub(crate) wall_ms: i64,
    /// Since some moment before; never set.
    pub(crate) monotonic_ms: i64,
}

impl Now {
    /// As it is, with a monotonic clock that began at `start`.
    pub(crate) fn since(start: Instant) -> Self {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self { wall_ms: now_ms(), monotonic_ms: ms(start.elapsed()) }
    }

    fn offset_ms(self) -> i64 {
        self.wall_ms.saturating_sub(self.monotonic_ms)
    }
}

/// An order that waits for credit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) order_id: Uuid,
    pub(crate) create_time_ms: i64,
    pub(crate) deadline_ms: i64,
}

/// The deadlines of the orders that waited when the wall clock was set.
pub(crate) struct Deadlines {
    /// What the wall clock is ahead of the monotonic one.
    offset_ms: i64,
    /// By order, of those that are held to the monotonic clock.
    held: BTreeMap<Uuid, Held>,
    /// What was created before is held, or was left out of too many.
    created_from_ms: i64,
}

/// A deadline, and the offset of the clock that it was stored by.
#[derive(Clone, Copy)]
struct Held {
    deadline_ms: i64,
    offset_ms: i64,
}

impl Held {
    fn now_ms(self, now: Now) -> i64 {
        now.monotonic_ms.saturating_add(self.offset_ms)
    }
}

impl Deadlines {
    pub(crate) fn new(now: Now) -> Self {
        Self { offset_ms: now.offset_ms(), held: BTreeMap::new(), created_from_ms: i64::MIN }
    }

    /// By how many milliseconds the wall clock was set since the last [`hold`](Self::hold), if it was.
    pub(crate) fn was_set(&self, now: Now) -> Option<i64> {
        let by = now.offset_ms().saturating_sub(self.offset_ms);
        (by.saturating_abs() > MAX_DRIFT_MS).then_some(by)
    }

    /// The wall clock was set: what is stored by the old one is held to the monotonic clock from now on. Returns of how many orders.
    pub(crate) fn hold(&mut self, now: Now, waiting: &[Waiting]) -> usize {
        let before = self.held.len();
        for Waiting { order_id, create_time_ms, deadline_ms } in waiting {
            // Stored since the clock was set, which was noticed at once.
            let is_new = (0..=MAX_DRIFT_MS).contains(&now.wall_ms.saturating_sub(*create_time_ms));
            if !is_new {
                let held = Held { deadline_ms: *deadline_ms, offset_ms: self.offset_ms };
                self.held.entry(*order_id).or_insert(held);
            }
        }
        let forward = now.offset_ms() > self.offset_ms;
        self.created_from_ms = if forward { now.wall_ms.saturating_sub(MAX_DRIFT_MS) } else { i64::MIN };
        self.offset_ms = now.offset_ms();
        self.held.len() - before
    }

    /// The orders that are overdue by the monotonic clock, each with what its own clock would show now.
    pub(crate) fn overdue(&self, now: Now) -> Vec<(Uuid, i64)> {
        let overdue = self.held.iter().filter(|(_, held)| held.deadline_ms <= held.now_ms(now));
        overdue.map(|(order_id, held)| (*order_id, held.now_ms(now))).collect()
    }

    /// Whether an order is held to the monotonic clock, whatever the wall clock says.
    pub(crate) fn holds(&self, order_id: &Uuid) -> bool {
        self.held.contains_key(order_id)
    }

    /// An order needs no deadline any more.
    pub(crate) fn release(&mut self, order_id: &Uuid) {
        self.held.remove(order_id);
        if self.held.is_empty() {
            self.created_from_ms = i64::MIN;
        }
    }

    /// The orders that were created since are told by the wall clock.
    pub(crate) fn created_from_ms(&self) -> i64 {
        self.created_from_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_700_000_000_000;

    fn at(wall_ms: i64, monotonic_ms: i64) -> Now {
        Now { wall_ms, monotonic_ms }
    }

    fn order(number: u128, create_time_ms: i64, patience_ms: i64) -> Waiting {
        let deadline_ms = create_time_ms.saturating_add(patience_ms);
        Waiting { order_id: Uuid::from_u128(number), create_time_ms, deadline_ms }
    }

    fn overdue(deadlines: &Deadlines, now: Now) -> Vec<u128> {
        deadlines.overdue(now).into_iter().map(|(order_id, _)| order_id.as_u128()).collect()
    }

    #[test]
    fn an_order_keeps_the_time_that_it_had_left_wherever_the_wall_clock_is_set() {
        for by in [HOUR, -HOUR, 24 * HOUR, 2_000, -2_000, -START, -2 * START, i64::MAX, i64::MIN] {
            let mut deadlines = Deadlines::new(at(START, 0));
            let old = order(1, START + 1_000, 6_000);
            assert_eq!(deadlines.was_set(at(START + 1_500, 1_500)), None);
            let set = at((START + 2_000).saturating_add(by), 2_000);
            assert!(deadlines.was_set(set).is_some(), "{by}");
            // One of the new time is told by the store.
            let new = order(2, set.wall_ms.saturating_sub(300), 6_000);
            assert_eq!(deadlines.hold(set, &[old, new]), 1, "{by}");
            assert!(
                deadlines.was_set(set).is_none() && deadlines.holds(&old.order_id) && !deadlines.holds(&new.order_id)
            );

            let wall_ms = |later: i64| set.wall_ms.saturating_add(later);
            assert_eq!(overdue(&deadlines, at(wall_ms(4_999), 6_999)), [], "{by}");
            assert_eq!(deadlines.overdue(at(wall_ms(5_000), 7_000)), [(old.order_id, old.deadline_ms)], "{by}");
            deadlines.release(&old.order_id);
            assert_eq!(overdue(&deadlines, at(wall_ms(6_000), 8_000)), []);
            assert_eq!(deadlines.created_from_ms(), i64::MIN);
        }
    }

    #[test]
    fn an_order_is_given_its_time_once_however_often_the_clock_is_set() {
        let mut deadlines = Deadlines::new(at(START, 0));
        let first = order(1, START, 10_000);
        deadlines.hold(at(START + HOUR + 1_000, 1_000), &[first]);
        let second = order(2, START + HOUR + 1_500, 10_000);
        deadlines.hold(at(START + 3_000, 3_000), &[first, second]);
        deadlines.hold(at(START - HOUR + 5_000, 5_000), &[first, second]);
        assert_eq!(overdue(&deadlines, at(START - HOUR + 9_999, 9_999)), []);
        assert_eq!(overdue(&deadlines, at(START - HOUR + 10_000, 10_000)), [1]);
        assert_eq!(overdue(&deadlines, at(START - HOUR + 11_500, 11_500)), [1, 2]);
    }

    #[test]
    fn after_a_step_forward_the_store_is_asked_for_what_came_since() {
        let mut deadlines = Deadlines::new(at(START, 0));
        deadlines.hold(at(START + HOUR, 0), &[order(1, START, 10_000)]);
        assert_eq!(deadlines.created_from_ms(), START + HOUR - MAX_DRIFT_MS);
        deadlines.hold(at(START, 0), &[]);
        assert_eq!(deadlines.created_from_ms(), i64::MIN);
    }
}
