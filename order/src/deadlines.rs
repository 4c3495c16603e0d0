//! Which orders are overdue, while wall clocks are set under running processes.
//!
//! A deadline is stored as wall time, so that it holds over restarts, and what is overdue is one question to the store. But a wall
//! clock is set: by an hour, by NTP after a start, by hand; and the clocks of two hosts of one service may differ. So each process
//! judges an order by exactly one clock:
//!
//! - By the **wall clock**, if nothing speaks against it. After a start there is no other.
//! - By the **monotonic clock, with the time that the order had left**, if this host's wall clock was set while the order waited.
//! - By the **monotonic clock, with all the time that the order was given**, if it became overdue before the last sweep, which has
//!   not found it: it was stored since, by the clock of another host.
//!
//! An order that is given a monotonic deadline keeps it. Where the clocks of two hosts differ by less than an order's time, the host
//! whose clock is ahead rejects the order too early by that difference, at most.

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

/// The most orders that are held to the monotonic clock: 6 MB. Others wait until some are done.
pub(crate) const MAX_HELD_ORDERS: usize = 100_000;

/// The deadlines of the orders that the wall clock does not judge.
pub(crate) struct Deadlines {
    /// What the wall clock is ahead of the monotonic one.
    offset_ms: i64,
    /// When the last sweep was, or else the start, by the monotonic clock.
    swept_ms: i64,
    has_swept: bool,
    /// By order, of those that are held to the monotonic clock.
    held: BTreeMap<Uuid, Held>,
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
        Self { offset_ms: now.offset_ms(), swept_ms: now.monotonic_ms, has_swept: false, held: BTreeMap::new() }
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
            // Stored since the clock was set, which was after the last sweep.
            let age_ms = now.wall_ms.saturating_sub(*create_time_ms);
            let is_new = (0..=self.since_swept_ms(now)).contains(&age_ms);
            if !is_new {
                let held = Held { deadline_ms: *deadline_ms, offset_ms: self.offset_ms };
                self.held.entry(*order_id).or_insert(held);
            }
        }
        self.offset_ms = now.offset_ms();
        self.held.len() - before
    }

    /// Of an order that is overdue by the wall clock and not held: whether it is. One that the last sweep should have found, had it
    /// been there, is held instead.
    pub(crate) fn is_overdue(&mut self, now: Now, order: &Waiting) -> bool {
        let overdue_ms = now.wall_ms.saturating_sub(order.deadline_ms);
        if !self.has_swept || overdue_ms <= self.since_swept_ms(now) {
            return true;
        }
        if self.held.len() < MAX_HELD_ORDERS {
            // As if it was created now.
            let offset_ms = order.create_time_ms.saturating_sub(now.monotonic_ms);
            self.held.insert(order.order_id, Held { deadline_ms: order.deadline_ms, offset_ms });
        }
        false
    }

    /// All orders that are overdue were read.
    pub(crate) fn swept(&mut self, now: Now) {
        self.swept_ms = now.monotonic_ms;
        self.has_swept = true;
    }

    /// The time since the last sweep, or what an order may take from its creation to its row, if that is more.
    fn since_swept_ms(&self, now: Now) -> i64 {
        now.monotonic_ms.saturating_sub(self.swept_ms).max(MAX_DRIFT_MS)
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
            // An order stored since then, by the new time, is not held.
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
    fn a_sweep_that_comes_late_after_the_clock_was_set_tells_what_was_stored_before() {
        for by in [HOUR, -HOUR] {
            let mut deadlines = Deadlines::new(at(START, 0));
            deadlines.swept(at(START + 500, 500));
            // The clock is set after 1 s, and the next sweep is 5 s later.
            let set = at(START + by + 6_000, 6_000);
            let (old, new) = (order(1, START + 900, 6_000), order(2, START + by + 1_100, 6_000));
            assert_eq!(deadlines.hold(set, &[old, new]), 1, "{by}");
            assert!(deadlines.holds(&old.order_id) && !deadlines.holds(&new.order_id), "{by}");
        }
    }

    #[test]
    fn an_order_by_a_clock_that_is_far_behind_has_all_the_time_that_it_was_given() {
        let mut deadlines = Deadlines::new(at(START, 0));
        let left_behind = order(1, START - HOUR, 6_000);
        assert!(deadlines.is_overdue(at(START, 0), &left_behind), "after a start the wall clock is all there is");
        deadlines.swept(at(START, 0));
        let sweep = at(START + 500, 500);
        assert!(deadlines.is_overdue(sweep, &order(2, START - 5_600, 6_000)), "since the last sweep");
        let behind = order(3, START + 400 - HOUR, 6_000);
        assert!(!deadlines.is_overdue(sweep, &behind) && deadlines.holds(&behind.order_id));
        deadlines.swept(sweep);
        assert_eq!(overdue(&deadlines, at(START + 6_499, 6_499)), []);
        let late = at(START + 6_500, 6_500);
        assert_eq!(deadlines.overdue(late), [(behind.order_id, behind.deadline_ms)]);
    }

    #[test]
    fn sweeps_that_could_not_be_made_let_no_order_wait_longer() {
        let mut deadlines = Deadlines::new(at(START, 0));
        deadlines.swept(at(START, 0));
        let late = at(START + HOUR, HOUR);
        assert!(deadlines.is_overdue(late, &order(1, START, 6_000)));
    }

    #[test]
    fn what_is_held_is_bounded_and_what_is_beyond_waits() {
        let mut deadlines = Deadlines::new(at(START, 0));
        deadlines.swept(at(START, 0));
        let behind = |number: u128| order(number, START - HOUR, 6_000);
        for number in 0..=MAX_HELD_ORDERS as u128 {
            assert!(!deadlines.is_overdue(at(START, 0), &behind(number)));
        }
        assert_eq!(deadlines.held.len(), MAX_HELD_ORDERS);
    }
}
