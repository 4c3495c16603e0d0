//! Endpoints that are equally welcome, and the choice between them: the less loaded of two that are drawn at random (P2C).
//!
//! The draw follows the weights, so that shares do at any load. Two loads that are close are as good as equal: then the one
//! that was drawn first is taken, or noise in the measurements would decide instead of the weights.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

/// How long a new endpoint takes to its full share: its caches, pools and just-in-time compilers are cold.
pub(super) const SLOW_START: Duration = Duration::from_secs(10);
/// The share that a new endpoint begins with: enough to warm up, and to be measured.
const FIRST_SHARE: f64 = 0.1;
/// The other of two must have less than this part of the first one's load to be taken instead.
const CLEARLY_LESS: f64 = 0.9;
/// Draws before one is taken that is not wanted. With many endpoints the first is nearly always good.
const DRAWS: usize = 8;

/// Endpoints, each with its weight.
#[derive(Debug)]
pub(super) struct Tier<T> {
    seats: Vec<Seat<T>>,
}

#[derive(Debug)]
struct Seat<T> {
    endpoint: T,
    /// Relative to the usual one.
    weight: f64,
    /// The sum of the weights up to and with this one.
    end: f64,
    /// Since when it has been there.
    since: Instant,
}

impl<T> Default for Tier<T> {
    fn default() -> Self {
        Self { seats: Vec::new() }
    }
}

impl<T> Tier<T> {
    /// Adds an endpoint that has been there since then. Its weight is relative to the usual one, and above 0.
    pub(super) fn add(&mut self, endpoint: T, weight: f64, since: Instant) {
        let end = self.capacity() + weight;
        self.seats.push(Seat { endpoint, weight, end, since });
    }

    #[cfg(test)]
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &T> {
        self.seats.iter().map(|seat| &seat.endpoint)
    }

    /// The sum of the weights.
    pub(super) fn capacity(&self) -> f64 {
        self.seats.last().map_or(0.0, |seat| seat.end)
    }

    /// Takes the less loaded of two that are ready. `oldest` is since when the first endpoint has been there; `load` tells
    /// the load of one that has a weight, unless it is not ready.
    pub(super) fn choose(
        &self,
        now: Instant,
        oldest: Instant,
        rng: &mut impl Rng,
        load: impl Fn(&T, f64) -> Option<f64>,
    ) -> Option<&T> {
        let warmth = |seat: &Seat<T>| warmth(now, seat.since, oldest);
        let load = |index: usize| {
            let seat = &self.seats[index];
            load(&seat.endpoint, seat.weight * warmth(seat))
        };
        let (first, second) = match self.seats.len() {
            0 => return None,
            1 => (0, None),
            _ => {
                let first = self.draw(None, rng, warmth);
                (first, Some(self.draw(Some(first), rng, warmth)))
            }
        };
        let chosen = match (load(first), second.map(|second| (second, load(second)))) {
            (Some(one), Some((second, Some(other)))) if other < one * CLEARLY_LESS => second,
            (Some(_), _) => first,
            (None, Some((second, Some(_)))) => second,
            (None, _) => self.first_ready_after(first, load)?,
        };
        Some(&self.seats[chosen].endpoint)
    }

    /// One of several endpoints at random, by weight, and less often while it is new. Not `except`.
    fn draw(&self, except: Option<usize>, rng: &mut impl Rng, warmth: impl Fn(&Seat<T>) -> f64) -> usize {
        let mut drawn = None;
        for _ in 0..DRAWS {
            let at = rng.random::<f64>() * self.capacity();
            let index = self.seats.partition_point(|seat| seat.end <= at).min(self.seats.len() - 1);
            if Some(index) == except {
                continue;
            }
            drawn = Some(index);
            let warmth = warmth(&self.seats[index]);
            if warmth >= 1.0 || rng.random::<f64>() < warmth {
                return index;
            }
        }
        // No draw was wanted, because one outweighs all others, or nearly all are new.
        drawn.unwrap_or_else(|| except.map_or(0, |except| (except + 1) % self.seats.len()))
    }

    fn first_ready_after(&self, index: usize, load: impl Fn(usize) -> Option<f64>) -> Option<usize> {
        let seats = self.seats.len();
        (1..seats).map(|step| (index + step) % seats).find(|index| load(*index).is_some())
    }
}

/// The part of its full share that an endpoint is due. Counted against the oldest: while all are new, none is held back.
fn warmth(now: Instant, since: Instant, oldest: Instant) -> f64 {
    let age = now.saturating_duration_since(since);
    if age >= SLOW_START || since <= oldest {
        return 1.0;
    }
    let full = now.saturating_duration_since(oldest).min(SLOW_START);
    (age.as_secs_f64() / full.as_secs_f64()).max(FIRST_SHARE)
}
