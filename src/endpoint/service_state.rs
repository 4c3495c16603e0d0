//! What the endpoints of one service share.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use crate::policy::EjectionPolicy;

/// The latency of an endpoint while no endpoint of the service has answered.
const UNKNOWN: Duration = Duration::from_millis(1);
/// How old the median latency may be: it moves slowly, and costs a look at every endpoint.
const MEDIAN_AGE: Duration = Duration::from_millis(500);

/// What the endpoints of one service share, and how they tell the driver that it has to look at them.
#[derive(Debug)]
pub(crate) struct ServiceState {
    /// Median seconds to response headers, as bits of an f64; 0 while no endpoint has answered.
    typical: AtomicU64,
    /// When the median is too old, in nanoseconds since `created`.
    median_due: AtomicU64,
    created: Instant,
    ejection: Mutex<EjectionPolicy>,
    /// Too many endpoints are ejected, so that ejections are ignored.
    panic: AtomicBool,
    generations: AtomicU64,
    /// An endpoint has come or gone, connected or failed, since the driver looked last.
    stale: AtomicBool,
    /// Which endpoints have changed, each once.
    dirty: Mutex<Vec<u64>>,
    /// A median is wanted.
    median_wanted: AtomicBool,
    /// Wakes the driver.
    pub(crate) driver: Notify,
}

impl ServiceState {
    pub(crate) fn new() -> Self {
        Self {
            typical: AtomicU64::new(0),
            median_due: AtomicU64::new(0),
            created: Instant::now(),
            ejection: Mutex::default(),
            panic: AtomicBool::new(false),
            generations: AtomicU64::new(0),
            stale: AtomicBool::new(true),
            dirty: Mutex::default(),
            median_wanted: AtomicBool::new(false),
            driver: Notify::new(),
        }
    }

    /// Before any of its endpoints.
    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Seconds to response headers that are usual here.
    pub(crate) fn typical(&self) -> f64 {
        let typical = f64::from_bits(self.typical.load(Ordering::Relaxed));
        if typical > 0.0 { typical } else { UNKNOWN.as_secs_f64() }
    }

    pub(crate) fn set_typical(&self, seconds: f64) {
        self.typical.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// An endpoint answered for the first time: until more is known, that is the best guess for all.
    pub(crate) fn note_first_answer(&self, seconds: f64) {
        if self.typical.load(Ordering::Relaxed) == 0 {
            self.set_typical(seconds);
        }
    }

    /// A call is made: asks the driver for a new median if the last one is too old.
    pub(crate) fn note_call(&self, now: Instant) {
        if self.since_creation(now) >= self.median_due.load(Ordering::Relaxed) && self.postpone_median(now) {
            self.median_wanted.store(true, Ordering::Release);
            self.driver.notify_one();
        }
    }

    /// Whether a median is wanted, which the driver then computes.
    pub(crate) fn take_median_wanted(&self) -> bool {
        self.median_wanted.swap(false, Ordering::Acquire)
    }

    /// Whether it is time for a new median, which then is the caller's to compute.
    fn postpone_median(&self, now: Instant) -> bool {
        let due = self.median_due.load(Ordering::Relaxed);
        let next = self.since_creation(now + MEDIAN_AGE);
        self.median_due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn since_creation(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn set_ejection(&self, policy: EjectionPolicy) {
        *self.ejection() = policy;
    }

    pub(crate) fn ejection(&self) -> MutexGuard<'_, EjectionPolicy> {
        self.ejection.lock()
    }

    pub(crate) fn in_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    pub(crate) fn set_panic(&self, panic: bool) {
        self.panic.store(panic, Ordering::Relaxed);
    }

    /// A number that was never given before.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// The driver must look at the endpoints again.
    pub(crate) fn changed(&self) {
        self.stale.store(true, Ordering::Release);
        self.driver.notify_one();
    }

    /// The driver must look at an endpoint again; each endpoint signals this once.
    pub(crate) fn endpoint_changed(&self, id: u64) {
        self.dirty.lock().push(id);
        self.changed();
    }

    /// The endpoints that have changed since the last time.
    pub(crate) fn take_dirty(&self) -> Vec<u64> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Whether the driver must look at the endpoints again, which it then does.
    pub(crate) fn take_changed(&self) -> bool {
        self.stale.load(Ordering::Relaxed) && self.stale.swap(false, Ordering::Acquire)
    }
}
