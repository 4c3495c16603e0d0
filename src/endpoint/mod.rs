//! What is known of one endpoint, and the calls that tell it: their begin, their answer, and their end.
//!
//! A call is charged to its endpoint from the pick to its last byte. What it tells goes to two pure rules: [`Load`], which
//! makes an endpoint dearer or cheaper, and [`Health`], which closes it. Who is to blame is decided by those who see the
//! call ([`Outcome`]); one that simply ends without an answer was given up by its caller, or timed out.

pub(crate) mod connection;
pub(crate) mod load;
pub(crate) mod outlier_detection;
pub(crate) mod peer;
pub(crate) mod stats;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use load::Load;
use outlier_detection::{Health, News};

use crate::policy::EjectionPolicy;

/// The latency of an endpoint when nobody in the set has answered yet.
const UNKNOWN: Duration = Duration::from_millis(1);
/// A deadline within so many times the typical latency was too close: that it passed says nothing about the endpoint.
const FAIR_TIMEOUT: f64 = 2.0;

/// How a call went, as far as its endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered; also if the answer is an error of the caller's.
    Served,
    /// It broke off, or said that it cannot.
    Failed,
    /// It has no room, is leaving, or is not whom we took it for. Others had better get the next calls, but that is no
    /// reason to eject it.
    Refused,
}

/// Whether endpoints are passed over that their failures have ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ejections {
    Heeded,
    /// Too many would be: panic.
    Ignored,
}

/// What the endpoints of one picker share.
#[derive(Debug)]
pub(crate) struct Set {
    /// Median seconds to response headers, as bits of an f64; 0 while nobody has answered.
    typical: AtomicU64,
    ejection: Mutex<EjectionPolicy>,
    /// An endpoint has come or gone, opened or closed, since the picker looked last.
    stale: AtomicBool,
    /// Wakes the picker's driver.
    pub(crate) driver: Notify,
}

impl Set {
    pub(crate) fn new() -> Self {
        Self {
            typical: AtomicU64::new(0),
            ejection: Mutex::default(),
            stale: AtomicBool::new(true),
            driver: Notify::new(),
        }
    }

    /// Seconds to response headers that are usual here.
    pub(crate) fn typical(&self) -> f64 {
        let typical = f64::from_bits(self.typical.load(Ordering::Relaxed));
        if typical > 0.0 { typical } else { UNKNOWN.as_secs_f64() }
    }

    pub(crate) fn set_typical(&self, seconds: f64) {
        self.typical.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// Somebody answered for the first time: while nothing else is known, that is the best guess for all.
    fn note_first_answer(&self, seconds: f64) {
        if self.typical.load(Ordering::Relaxed) == 0 {
            self.set_typical(seconds);
        }
    }

    pub(crate) fn set_ejection(&self, policy: EjectionPolicy) {
        *self.ejection() = policy;
    }

    /// The picker must look at its endpoints again.
    pub(crate) fn changed(&self) {
        self.stale.store(true, Ordering::Release);
        self.driver.notify_one();
    }

    /// Whether the picker must look at its endpoints again, which it then does.
    pub(crate) fn take_changed(&self) -> bool {
        self.stale.load(Ordering::Relaxed) && self.stale.swap(false, Ordering::Acquire)
    }

    fn ejection(&self) -> MutexGuard<'_, EjectionPolicy> {
        self.ejection.lock().expect("no code panics while it holds this lock")
    }
}

/// One endpoint's load and health.
#[derive(Debug)]
pub(crate) struct Account {
    set: Arc<Set>,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    load: Load,
    health: Health,
    calls: u64,
    failures: u64,
    ejections: u64,
}

/// An account as it stands at a time.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) health: Health,
    pub(crate) calls: CallStats,
}

/// What a client has seen of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallStats {
    /// What the next call would cost there, as it is compared with others: seconds to response headers, times the calls
    /// under way, times a penalty for failures.
    pub load: f64,
    /// The average time to response headers, of the last seconds above all. `None`: none have come.
    pub latency: Option<Duration>,
    /// Calls that have not ended.
    pub pending: u32,
    /// Calls that were sent there, also those that are sent again.
    pub calls: u64,
    /// Those of them that failed, and that the endpoint is to blame for.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

impl Account {
    pub(crate) fn new(set: Arc<Set>) -> Self {
        let load = Load::new(Instant::now());
        let record = Record { load, health: Health::GOOD, calls: 0, failures: 0, ejections: 0 };
        Self { set, record: Mutex::new(record) }
    }

    pub(crate) fn set(&self) -> &Set {
        &self.set
    }

    /// The load of the endpoint, if its health lets a call in now. `weight` is relative to the usual one.
    pub(crate) fn offer(&self, now: Instant, ejections: Ejections, weight: f64) -> Option<f64> {
        let mut record = self.record();
        if record.health.release(now) {
            // What made it fail may be over: it is asked once, as one of which nothing is known.
            record.load.restart(now);
        }
        let open = ejections == Ejections::Ignored || record.health.admits(now);
        open.then(|| record.load.value(now, self.set.typical(), weight))
    }

    /// A call begins. It counts until the returned handle is dropped.
    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> PendingCall {
        let mut record = self.record();
        record.load.begin(now);
        record.health.begin(now);
        record.calls += 1;
        drop(record);
        PendingCall { account: self.clone(), begun: now, due: None, promised: false, stage: Stage::Waiting }
    }

    pub(crate) fn statement(&self, now: Instant, weight: f64) -> Statement {
        let record = self.record();
        let calls = CallStats {
            load: record.load.value(now, self.set.typical(), weight),
            latency: record.load.measured().map(Duration::from_secs_f64),
            pending: record.load.pending(),
            calls: record.calls,
            failures: record.failures,
            ejections: record.ejections,
        };
        Statement { health: record.health.clone(), calls }
    }

    pub(crate) fn health(&self) -> Health {
        self.record().health.clone()
    }

    /// Average seconds to response headers, as they came.
    pub(crate) fn measured(&self) -> Option<f64> {
        self.record().load.measured()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no code panics while it holds this lock")
    }
}

impl Record {
    /// Takes in what a call tells about the endpoint's health, and says whether that changes who may be picked.
    fn hear(&mut self, news: News, begun: Instant, now: Instant, set: &Set) -> bool {
        if let News::Failed { .. } = news {
            self.failures += 1;
        } else if matches!(self.health, Health::Healthy { failures: 0 }) {
            // Nearly every call.
            return false;
        }
        let (was_good, was_open) = (self.health.is_good(), self.health.admits(now));
        let health = std::mem::replace(&mut self.health, Health::GOOD);
        let was_ejected = matches!(health, Health::Ejected { .. });
        self.health = health.after(news, begun, now, &set.ejection());
        let is_ejected = matches!(self.health, Health::Ejected { .. });
        self.ejections += u64::from(is_ejected && !was_ejected);
        // Also if a probe has made room for the next one: somebody may wait for it.
        was_good != self.health.is_good() || was_ejected != is_ejected || was_open != self.health.admits(now)
    }
}

/// A call on its way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingCall {
    account: Arc<Account>,
    begun: Instant,
    due: Option<Instant>,
    /// Its answer has begun, and is worth nothing before more has come.
    promised: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// An answer has begun, and is no failure so far.
    Answered,
    /// The endpoint failed or refused it.
    Over,
}

impl PendingCall {
    /// When it must be answered: a call that ends without an answer before that was given up by its caller.
    pub(crate) fn due(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// The call is not sent here after all: it was none.
    pub(crate) fn unsent(mut self) {
        debug_assert_eq!(self.stage, Stage::Waiting, "it has not been sent");
        let now = Instant::now();
        let mut record = self.account.record();
        record.load.unsent();
        record.calls -= 1;
        let changed = record.hear(News::Nothing, self.begun, now, &self.account.set);
        drop(record);
        self.stage = Stage::Over;
        self.tell(changed);
    }

    /// The response headers are here, or it is known that none will come.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        debug_assert_eq!(self.stage, Stage::Waiting, "an answer comes once");
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let mut record = self.account.record();
        let news = match outcome {
            Outcome::Served => {
                record.load.served(now, took);
                if let Some(latency) = record.load.measured() {
                    self.account.set.note_first_answer(latency);
                }
                News::Answered
            }
            Outcome::Failed => {
                record.load.failed(now);
                News::Failed { jitter: rand::random() }
            }
            Outcome::Refused => {
                record.load.failed(now);
                News::Nothing
            }
        };
        let changed = record.hear(news, self.begun, now, &self.account.set);
        drop(record);
        self.stage = if outcome == Outcome::Served { Stage::Answered } else { Stage::Over };
        self.tell(changed);
    }

    /// Whether the answer has begun and is of no use before more of it has come: until then it can time out as well.
    pub(crate) fn promised(&mut self, promised: bool) {
        self.promised = promised;
    }

    /// The answer ended as a failure, after headers that looked well.
    pub(crate) fn failed_late(&mut self) {
        if self.stage == Stage::Over {
            // The headers have said so.
            return;
        }
        let now = Instant::now();
        let mut record = self.account.record();
        record.load.penalize(now);
        let changed = record.hear(News::Failed { jitter: rand::random() }, self.begun, now, &self.account.set);
        drop(record);
        self.stage = Stage::Over;
        self.tell(changed);
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.account.set.changed();
        }
    }

    /// Whether its deadline passed before an answer, although that left the endpoint enough time.
    fn has_timed_out(&self, now: Instant) -> bool {
        let took = now.saturating_duration_since(self.begun).as_secs_f64();
        self.due.is_some_and(|due| due <= now) && took >= FAIR_TIMEOUT * self.account.set.typical()
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let now = Instant::now();
        let set = &self.account.set;
        let mut record = self.account.record();
        let news = match self.stage {
            Stage::Over => None,
            Stage::Answered if self.promised && self.has_timed_out(now) => {
                record.load.penalize(now);
                Some(News::Failed { jitter: rand::random() })
            }
            Stage::Answered if self.promised => Some(News::Nothing),
            Stage::Answered => Some(News::Ended),
            Stage::Waiting => {
                record.load.abandoned(now, now.saturating_duration_since(self.begun), set.typical());
                let failed = self.has_timed_out(now);
                if failed {
                    record.load.penalize(now);
                }
                Some(if failed { News::Failed { jitter: rand::random() } } else { News::Nothing })
            }
        };
        record.load.end();
        let changed = news.is_some_and(|news| record.hear(news, self.begun, now, set));
        drop(record);
        self.tell(changed);
    }
}
