//! The expected cost of the next call at an endpoint: a pure rule; the clock is passed in.
//!
//! ```text
//!   load = latency x (1 + pending calls / weight) x failure penalty
//! ```
//!
//! - **latency**: a moving average of the time to response headers. The life of a long stream is not its latency. While
//!   several calls in a row wait for any answer, it is at least the time of that silence.
//! - **pending calls** are held to the end of the response body, so that streams count for as long as they are open.
//!   Weight, relative to the usual one, divides them alone: between idle endpoints it is the draw that follows the weights.
//! - **failure penalty**: a failing endpoint answers fast, and must not look good for it. Failures give no latency.
//!
//! An endpoint about which nothing recent is known has the median of its set: a guess that is too low
//! floods it, one that is too high starves it. tower's `PeakEwma` can do none of this: its `Cost` is private, it takes
//! failures as fast and a stream's life as its latency.

use std::time::Duration;

use tokio::time::Instant;

/// How fast old answers are forgotten: after this long without news, two thirds of an estimate.
const MEMORY: Duration = Duration::from_secs(5);
/// The lowest latency: a load of 0 could not be multiplied.
const FASTEST: Duration = Duration::from_micros(1);
/// How many times dearer an endpoint is that fails always. The square of the share counts: with one failure in ten calls it
/// costs hardly more, for any may have that; with every second call it costs 20 times as much, and is passed over as long
/// as the others do not have that many times its calls.
const PENALTY: f64 = 80.0;
/// How many times the typical latency a silence may count: for the same reason not without end.
const LONGEST_SILENCE: f64 = 20.0;
/// How much one call moves the share of failures: the last ten or so decide.
const FAILURE_STEP: f64 = 0.1;
/// This many calls without any answer are a silence of the endpoint. Fewer may just be slow ones.
const SILENT_CALLS: u32 = 3;

/// What is remembered of one endpoint's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Average seconds to response headers, once one has come.
    latency: Option<f64>,
    /// How many of them are in it.
    answers: u32,
    /// The share of calls that failed, 0 to 1.
    failing: f64,
    /// When the two were last changed.
    at: Instant,
    /// Calls that were begun since the last answer.
    ignored: u32,
    /// Since when they are enough for a silence.
    silent_since: Option<Instant>,
    /// Calls whose headers have not come.
    unanswered: u32,
    /// Calls that have not ended.
    pending: u32,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            latency: None,
            answers: 0,
            failing: 0.0,
            at: now,
            ignored: 0,
            silent_since: None,
            unanswered: 0,
            pending: 0,
        }
    }

    /// Forgets everything but the calls under way: the endpoint stands at the median again.
    pub(crate) fn restart(&mut self, now: Instant) {
        *self = Self { unanswered: self.unanswered, pending: self.pending, ..Self::new(now) };
    }

    /// Average seconds to response headers, as they came.
    pub(crate) fn measured(&self) -> Option<f64> {
        self.latency
    }

    /// Calls that have not ended.
    pub(crate) fn pending(&self) -> u32 {
        self.pending
    }

    /// What is left of old news: 1 at once, 0 after a long time.
    fn freshness(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }

    /// The estimate now, in seconds. It drifts to the set's median without new answers, except if calls are waiting for
    /// an answer: silence is then no reason to think better of the endpoint, but worse.
    fn latency(&self, now: Instant, typical: f64) -> f64 {
        match self.latency {
            latency if self.unanswered > 0 => latency.unwrap_or(typical).max(self.silence(now, typical)),
            None => typical,
            Some(latency) => typical + (latency - typical) * self.freshness(now),
        }
    }

    /// For how many seconds calls have waited without any answer, as far as that is held against the endpoint.
    fn silence(&self, now: Instant, typical: f64) -> f64 {
        let silence = self.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        silence.as_secs_f64().min(LONGEST_SILENCE * typical)
    }

    /// The load among endpoints with this typical latency. `weight` is relative to the usual one.
    pub(crate) fn value(&self, now: Instant, typical: f64, weight: f64) -> f64 {
        let failing = self.failing * self.freshness(now);
        let penalty = 1.0 + PENALTY * failing * failing;
        self.latency(now, typical) * (1.0 + f64::from(self.pending) / weight) * penalty
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.pending += 1;
        self.unanswered += 1;
        self.ignored = self.ignored.saturating_add(1);
        if self.ignored == SILENT_CALLS {
            self.silent_since = Some(now);
        }
    }

    /// Something has come back for a call, be it good or bad.
    fn heard(&mut self) {
        self.unanswered -= 1;
        self.ignored = 0;
        self.silent_since = None;
    }

    /// The call that began last was not sent after all.
    pub(crate) fn unsent(&mut self) {
        self.unanswered -= 1;
        self.ignored = self.ignored.saturating_sub(1);
        if self.ignored < SILENT_CALLS {
            self.silent_since = None;
        }
    }

    /// Response headers came.
    pub(crate) fn served(&mut self, now: Instant, took: Duration) {
        self.heard();
        self.learn(now, took.as_secs_f64());
        self.failing *= 1.0 - FAILURE_STEP;
    }

    /// A call failed, or was refused, instead of being answered.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.heard();
        self.penalize(now);
    }

    /// An answer ended as a failure, after headers that looked well.
    pub(crate) fn penalize(&mut self, now: Instant) {
        self.failing = self.failing * self.freshness(now) * (1.0 - FAILURE_STEP) + FAILURE_STEP;
        self.at = now;
    }

    /// A caller gave up before headers came, which is a lower bound of the latency.
    pub(crate) fn abandoned(&mut self, now: Instant, after: Duration, typical: f64) {
        let (after, silence) = (after.as_secs_f64(), self.silence(now, typical));
        let known = self.latency.unwrap_or(typical);
        if after > known {
            self.learn(now, after);
        }
        if silence > known {
            // Not averaged: no answer stands against it.
            self.latency = Some(silence);
            self.at = now;
        }
        self.unanswered -= 1;
        if self.unanswered == 0 {
            // No call waits any more: what comes later is not the same silence.
            self.ignored = 0;
            self.silent_since = None;
        }
    }

    /// The call has ended.
    pub(crate) fn end(&mut self) {
        self.pending -= 1;
    }

    fn learn(&mut self, now: Instant, seconds: f64) {
        let kept = self.freshness(now);
        let seconds = seconds.max(FASTEST.as_secs_f64());
        self.answers = self.answers.saturating_add(1);
        // The first ones are averaged plainly: the very first, which finds cold caches, must not stand for seconds.
        let part = (1.0 - kept).max(1.0 / f64::from(self.answers));
        self.latency = Some(self.latency.map_or(seconds, |latency| latency + (seconds - latency) * part));
        self.failing *= kept;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    /// What the others of the set take.
    const TYPICAL: f64 = 0.010;

    /// A load under a clock that is moved by hand.
    struct Trial {
        load: Load,
        now: Instant,
    }

    impl Trial {
        fn new() -> Self {
            let now = Instant::now();
            Self { load: Load::new(now), now }
        }

        /// One that has long answered every call in `took`.
        fn settled(took: Duration) -> Self {
            let mut trial = Self::new();
            trial.serve(took, 30 * SECOND);
            trial
        }

        fn serve(&mut self, took: Duration, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.load.begin(self.now);
                self.now += took;
                self.load.served(self.now, took);
                self.load.end();
            }
        }

        fn fail(&mut self) {
            self.load.begin(self.now);
            self.load.failed(self.now);
            self.load.end();
        }

        fn give_up(&mut self, after: Duration) {
            self.load.begin(self.now);
            self.now += after;
            self.load.abandoned(self.now, after, TYPICAL);
            self.load.end();
        }

        /// Its load as a multiple of that of an idle endpoint at the median.
        fn cost(&self) -> f64 {
            self.load.value(self.now, TYPICAL, 1.0) / TYPICAL
        }
    }

    fn near(cost: f64, expected: f64) -> bool {
        (cost / expected - 1.0).abs() < 0.05
    }

    #[test]
    fn a_slower_endpoint_costs_more_and_so_does_each_pending_call() {
        let mut trial = Trial::settled(50 * MS);
        assert!(near(trial.cost(), 5.0), "{}", trial.cost());
        (0..2).for_each(|_| trial.load.begin(trial.now));
        assert!(near(trial.cost(), 15.0), "{}", trial.cost());
    }

    #[test]
    fn pending_calls_count_less_at_an_endpoint_with_more_weight() {
        let mut load = Load::new(Instant::now());
        let now = load.at;
        assert!(near(load.value(now, TYPICAL, 0.5), TYPICAL), "idle ones differ in the draw only");
        (0..4).for_each(|_| load.begin(now));
        assert!(near(load.value(now, TYPICAL, 2.0), 3.0 * TYPICAL));
        assert!(near(load.value(now, TYPICAL, 0.5), 9.0 * TYPICAL));
    }

    #[test]
    fn a_long_stream_counts_as_pending_and_not_as_slow() {
        let mut trial = Trial::settled(10 * MS);
        trial.load.begin(trial.now);
        trial.load.served(trial.now + 10 * MS, 10 * MS);
        trial.now += 3600 * SECOND;
        assert!(near(trial.cost(), 2.0), "{}", trial.cost());
        trial.load.end();
        assert!(near(trial.cost(), 1.0), "{}", trial.cost());
    }

    #[test]
    fn one_of_which_nothing_is_known_stands_at_the_median() {
        assert!(near(Trial::new().cost(), 1.0));
        let mut slow = Trial::settled(2 * SECOND);
        assert!(near(slow.cost(), 200.0), "{}", slow.cost());
        slow.now += 120 * SECOND;
        assert!(near(slow.cost(), 1.0), "nor of late: {}", slow.cost());
    }

    #[test]
    fn one_that_fails_fast_costs_more_than_one_that_works_slowly_and_gets_another_chance_later() {
        let mut trial = Trial::settled(10 * MS);
        (0..30).for_each(|_| trial.fail());
        assert!(trial.cost() > 10.0, "{}", trial.cost());
        trial.now += 60 * SECOND;
        assert!(near(trial.cost(), 1.0), "{}", trial.cost());
    }

    #[test]
    fn one_that_fails_every_second_call_costs_many_times_more() {
        let mut trial = Trial::settled(10 * MS);
        for _ in 0..30 {
            trial.fail();
            trial.serve(MS, MS);
        }
        assert!(trial.cost() > 5.0, "{}", trial.cost());
    }

    #[test]
    fn a_slow_first_answer_is_soon_outweighed() {
        let mut trial = Trial::new();
        trial.serve(100 * MS, MS);
        trial.serve(10 * MS, 190 * MS);
        assert!(trial.cost() < 1.5, "{}", trial.cost());
    }

    #[test]
    fn a_single_failure_costs_little() {
        let mut trial = Trial::settled(10 * MS);
        trial.fail();
        assert!(trial.cost() < 2.0, "{}", trial.cost());
    }

    #[test]
    fn calls_that_are_given_up_make_an_endpoint_dear() {
        let mut trial = Trial::settled(10 * MS);
        (0..5).for_each(|_| trial.give_up(SECOND));
        assert!(trial.cost() > 20.0, "{}", trial.cost());
    }

    #[test]
    fn silence_is_held_against_an_endpoint_while_calls_still_wait() {
        let mut trial = Trial::settled(10 * MS);
        for _ in 0..SILENT_CALLS {
            trial.load.begin(trial.now);
        }
        let pending = f64::from(1 + SILENT_CALLS);
        trial.now += 100 * MS;
        assert!(near(trial.cost(), 10.0 * pending), "{}", trial.cost());
        trial.now += 3600 * SECOND;
        assert!(near(trial.cost(), LONGEST_SILENCE * pending), "within bounds: {}", trial.cost());
        trial.load.served(trial.now, 10 * MS);
        assert!(near(trial.cost(), pending), "until anything is heard: {}", trial.cost());
    }

    #[test]
    fn a_few_long_calls_are_no_silence() {
        let mut trial = Trial::settled(10 * MS);
        (1..SILENT_CALLS).for_each(|_| trial.load.begin(trial.now));
        trial.now += 3600 * SECOND;
        assert!(near(trial.cost(), f64::from(SILENT_CALLS)), "{}", trial.cost());
    }

    #[test]
    fn a_silence_that_callers_did_not_wait_out_is_remembered() {
        let mut trial = Trial::settled(10 * MS);
        // As hedged calls do, each of which leaves after 20 ms.
        (0..3).for_each(|_| trial.load.begin(trial.now));
        for _ in 0..20 {
            trial.now += 5 * MS;
            trial.load.begin(trial.now);
            trial.load.abandoned(trial.now, 20 * MS, TYPICAL);
            trial.load.end();
        }
        for _ in 0..3 {
            trial.load.abandoned(trial.now, 20 * MS, TYPICAL);
            trial.load.end();
        }
        assert!(near(trial.cost(), 10.0), "{}", trial.cost());
    }
}
