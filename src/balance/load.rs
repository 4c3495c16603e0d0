//! What the next call would cost at an endpoint, as tower's `Load` wants it told.
//!
//! ```text
//!   load = latency x (pending calls + 1) x failure penalty / weight
//! ```
//!
//! - **latency**: a moving average of the time to response headers. The life of a long stream is not its latency.
//! - **pending calls** are held to the end of the response body, so that streams count for as long as they are open.
//! - **failure penalty**: a failing endpoint answers fast, and must not look good for it. Failures give no latency.
//!
//! An endpoint of which nothing is known, or nothing recent, stands at the median of its set: a guess that is too low
//! floods it, one that is too high starves it. tower's `PeakEwma` can do none of this: its `Cost` is private, it takes
//! failures as fast and a stream's life as its latency.
//!
//! The rule ([`Record`]) is pure: the clock is passed in.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How fast old answers are forgotten: after this long without news, two thirds of an estimate.
const MEMORY: Duration = Duration::from_secs(5);
/// The latency of an endpoint when nobody in the set has answered yet.
const UNKNOWN: Duration = Duration::from_millis(1);
/// Nothing answers faster: a load of nothing could not be multiplied.
const FASTEST: Duration = Duration::from_micros(1);
/// How many times dearer an endpoint is that fails always. High enough to be passed over while others are busy, low enough
/// to be tried when all others have many times its calls.
const FAILURE_PENALTY: f64 = 20.0;
/// How much one call moves the share of failures: the last ten or so decide.
const FAILURE_STEP: f64 = 0.1;
/// How old the set's median may be: it moves slowly, and costs a look at every endpoint.
const MEDIAN_AGE: Duration = Duration::from_millis(500);
/// The weight of an instance that says none.
pub(crate) const DEFAULT_WEIGHT: u32 = 100;

/// The weight of an instance that states `weight`.
fn stated(weight: u32) -> u32 {
    if weight == 0 { DEFAULT_WEIGHT } else { weight }
}

/// How a call went, as far as its endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered; also if the answer is an error of the caller's.
    Served,
    /// It refused, broke off, or said that it cannot.
    Failed,
}

/// What is remembered of one endpoint's answers.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Average seconds to response headers, once one has come.
    latency: Option<f64>,
    /// The share of calls that failed, 0 to 1.
    failing: f64,
    /// When the two were last changed.
    at: Instant,
    /// Calls whose headers have not come.
    unanswered: u32,
    /// Calls that have not ended.
    pending: u32,
}

impl Record {
    fn new(now: Instant) -> Self {
        Self { latency: None, failing: 0.0, at: now, unanswered: 0, pending: 0 }
    }

    /// What is left of old news: 1 at once, 0 after a long time.
    fn freshness(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }

    /// The estimate now. It drifts to the set's median while nothing is heard, except if calls are waiting for an answer:
    /// silence is then no reason to think better of the endpoint.
    fn latency(&self, now: Instant, typical: f64) -> f64 {
        match self.latency {
            None => typical,
            Some(latency) if self.unanswered > 0 => latency,
            Some(latency) => typical + (latency - typical) * self.freshness(now),
        }
    }

    fn load(&self, now: Instant, typical: f64, weight: u32) -> f64 {
        let penalty = 1.0 + FAILURE_PENALTY * self.failing * self.freshness(now);
        self.latency(now, typical) * f64::from(self.pending + 1) * penalty * f64::from(DEFAULT_WEIGHT)
            / f64::from(weight)
    }

    fn served(&mut self, now: Instant, took: Duration) {
        let kept = self.freshness(now);
        let took = took.max(FASTEST).as_secs_f64();
        self.latency = Some(self.latency.map_or(took, |latency| latency * kept + took * (1.0 - kept)));
        self.failing *= (1.0 - FAILURE_STEP) * kept;
        self.at = now;
    }

    fn failed(&mut self, now: Instant) {
        self.failing = self.failing * self.freshness(now) * (1.0 - FAILURE_STEP) + FAILURE_STEP;
        self.at = now;
    }

    /// A caller gave up before headers came. That says how long it takes at least.
    fn abandoned(&mut self, now: Instant, after: Duration, typical: f64) {
        if after.as_secs_f64() > self.latency(now, typical) {
            self.served(now, after);
        }
    }
}

/// The endpoints of one service, whose loads are compared with each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadSet(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    /// Median seconds to response headers, as bits of an f64; 0 while nobody has answered.
    typical: AtomicU64,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    loads: Vec<Weak<EndpointLoad>>,
    /// When `typical` was computed.
    computed: Option<Instant>,
}

impl LoadSet {
    /// Adds an endpoint; it leaves with its last handle.
    pub(crate) fn add(&self, weight: u32) -> Arc<EndpointLoad> {
        let load = Arc::new(EndpointLoad {
            set: self.0.clone(),
            weight: AtomicU32::new(stated(weight)),
            record: Mutex::new(Record::new(Instant::now())),
        });
        let mut members = self.0.members();
        members.loads.retain(|load| load.strong_count() > 0);
        members.loads.push(Arc::downgrade(&load));
        load
    }
}

impl Set {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("no code panics while it holds this lock")
    }

    fn typical(&self) -> f64 {
        let typical = f64::from_bits(self.typical.load(Ordering::Relaxed));
        if typical > 0.0 { typical } else { UNKNOWN.as_secs_f64() }
    }

    /// Brings the median up to date if it is old. `first` says that somebody answered for the first time.
    fn refresh(&self, now: Instant, first: bool) {
        let mut members = self.members();
        let old = members.computed.is_none_or(|at| now.saturating_duration_since(at) > MEDIAN_AGE);
        if !old && !first {
            return;
        }
        members.computed = Some(now);
        let mut latencies: Vec<_> =
            members.loads.iter().filter_map(Weak::upgrade).filter_map(|load| load.record().latency).collect();
        if !latencies.is_empty() {
            let middle = (latencies.len() - 1) / 2;
            let (_, median, _) = latencies.select_nth_unstable_by(middle, f64::total_cmp);
            self.typical.store(median.to_bits(), Ordering::Relaxed);
        }
    }
}

/// One endpoint's load.
#[derive(Debug)]
pub(crate) struct EndpointLoad {
    set: Arc<Set>,
    weight: AtomicU32,
    record: Mutex<Record>,
}

impl EndpointLoad {
    /// What tower's balance compares.
    pub(crate) fn load(&self) -> f64 {
        self.record().load(Instant::now(), self.set.typical(), self.weight.load(Ordering::Relaxed))
    }

    /// The instance's share of calls changed.
    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(stated(weight), Ordering::Relaxed);
    }

    /// A call begins. It counts until the returned handle is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> PendingCall {
        let mut record = self.record();
        record.pending += 1;
        record.unanswered += 1;
        drop(record);
        PendingCall { load: self.clone(), begun: Instant::now(), answered: false }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no code panics while it holds this lock")
    }
}

/// A call on its way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingCall {
    load: Arc<EndpointLoad>,
    begun: Instant,
    answered: bool,
}

impl PendingCall {
    /// The response headers are here, or it is known that none will come.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        let now = Instant::now();
        let mut record = self.load.record();
        if !self.answered {
            self.answered = true;
            record.unanswered -= 1;
        }
        let first = record.latency.is_none();
        match outcome {
            Outcome::Served => record.served(now, now.saturating_duration_since(self.begun)),
            Outcome::Failed => return record.failed(now),
        }
        drop(record);
        self.load.set.refresh(now, first);
    }

    /// The answer ended as a failure, after headers that looked well.
    pub(crate) fn failed_late(&mut self) {
        self.load.record().failed(Instant::now());
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let now = Instant::now();
        let typical = self.load.set.typical();
        let mut record = self.load.record();
        record.pending -= 1;
        if !self.answered {
            record.unanswered -= 1;
            record.abandoned(now, now.saturating_duration_since(self.begun), typical);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// An endpoint that has answered every call of a second in `took`.
    async fn settled(set: &LoadSet, took: Duration) -> Arc<EndpointLoad> {
        let load = set.add(DEFAULT_WEIGHT);
        serve(&load, took, Duration::from_secs(30)).await;
        load
    }

    async fn serve(load: &Arc<EndpointLoad>, took: Duration, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let mut call = load.begin();
            tokio::time::advance(took).await;
            call.answered(Outcome::Served);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slower_endpoint_costs_more_and_so_does_each_pending_call() {
        let set = LoadSet::default();
        let slow = settled(&set, 20 * MS).await;
        let fast = settled(&set, 5 * MS).await;
        serve(&slow, 20 * MS, Duration::from_secs(1)).await;
        serve(&fast, 5 * MS, Duration::from_millis(5)).await;
        assert!(fast.load() < slow.load());

        let one = fast.load();
        let calls: Vec<_> = (0..3).map(|_| fast.begin()).collect();
        assert!((fast.load() / one - 4.0).abs() < 0.01, "{} of {one}", fast.load());
        drop(calls);
        assert!((fast.load() / one - 1.0).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stream_counts_as_pending_and_not_as_slow() {
        let set = LoadSet::default();
        let load = settled(&set, 5 * MS).await;
        let before = load.load();
        let mut stream = load.begin();
        tokio::time::advance(5 * MS).await;
        stream.answered(Outcome::Served);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!((load.load() / before - 2.0).abs() < 0.01, "one more pending, nothing else");
        drop(stream);
        assert!((load.load() / before - 1.0).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_stands_at_the_median_and_gets_its_share_of_calls_only() {
        let set = LoadSet::default();
        for latency in [2, 10, 40] {
            settled(&set, latency * MS).await;
        }
        let others = [settled(&set, 10 * MS).await, settled(&set, 10 * MS).await];
        let new = set.add(DEFAULT_WEIGHT);

        let mut calls = Vec::new();
        for _ in 0..30 {
            let all = [&others[0], &others[1], &new];
            let least = all.into_iter().min_by(|a, b| a.load().total_cmp(&b.load())).expect("three");
            calls.push(least.begin());
        }

        let got = new.record().pending;
        assert!((8..=12).contains(&got), "a tenth of the median as its seed would give it nearly all: {got}");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_new_none_is_preferred() {
        let set = LoadSet::default();
        let (a, b) = (set.add(DEFAULT_WEIGHT), set.add(DEFAULT_WEIGHT));
        assert!((a.load() - b.load()).abs() < f64::EPSILON);
        let mut call = a.begin();
        tokio::time::advance(7 * MS).await;
        call.answered(Outcome::Served);
        drop(call);
        assert!((a.load() / b.load() - 1.0).abs() < 0.01, "the first answer of one is the best guess of the other");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_fails_fast_costs_more_than_one_that_works_slowly() {
        let set = LoadSet::default();
        let (works, fails) = (settled(&set, 20 * MS).await, settled(&set, 20 * MS).await);
        for _ in 0..30 {
            fails.begin().answered(Outcome::Failed);
        }
        serve(&works, 20 * MS, 40 * MS).await;
        assert!(fails.load() > 10.0 * works.load(), "{} and {}", fails.load(), works.load());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(fails.load() < 1.1 * works.load(), "and gets another chance later");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_given_up_make_an_endpoint_dear() {
        let set = LoadSet::default();
        let (answers, hangs) = (settled(&set, 5 * MS).await, settled(&set, 5 * MS).await);
        for _ in 0..5 {
            let call = hangs.begin();
            tokio::time::advance(Duration::from_secs(1)).await;
            drop(call);
        }
        assert!(hangs.load() > 20.0 * answers.load(), "{} and {}", hangs.load(), answers.load());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_estimate_drifts_to_the_median_and_not_to_nothing() {
        let set = LoadSet::default();
        let spiked = settled(&set, Duration::from_secs(2)).await;
        let others = [settled(&set, 10 * MS).await, settled(&set, 10 * MS).await];
        tokio::time::advance(Duration::from_secs(120)).await;
        serve(&others[0], 10 * MS, 50 * MS).await;
        assert!((spiked.load() / others[0].load() - 1.0).abs() < 0.05, "{} {}", spiked.load(), others[0].load());
    }

    #[tokio::test(start_paused = true)]
    async fn weight_divides_the_load() {
        let set = LoadSet::default();
        let (half, whole) = (set.add(50), set.add(DEFAULT_WEIGHT));
        assert!((half.load() / whole.load() - 2.0).abs() < 0.01);
        half.set_weight(0);
        assert!((half.load() / whole.load() - 1.0).abs() < 0.01, "0 is the default");
    }
}
