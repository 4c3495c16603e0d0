//! The experiment of Finagle's "Beyond Round Robin", on a simulated clock: 11 endpoints that answer in 167 ms, 1,000 calls
//! per second, each with a second of time; one endpoint is ill from the 15th to the 45th second of 60. Nothing is sent again.

use std::collections::BinaryHeap;

use super::*;

const MS: Duration = Duration::from_millis(1);
const NAMES: [&str; 11] = ["ill", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
const CALLS: u32 = 60_000;
const TIMEOUT: Duration = Duration::from_secs(1);

/// What becomes of a call at the ill endpoint, the so-many-th there.
type Illness = fn(u32) -> (Duration, Ending);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Answered(Blame),
    /// Its caller has no more time.
    TimedOut,
    /// Its caller has got an answer elsewhere.
    GivenUp,
}

/// A call under way, the first to end on top.
struct Flight {
    ends: Instant,
    ending: Ending,
    pick: Pick<Link>,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.ends.cmp(&self.ends)
    }
}

impl Flight {
    fn new(mut pick: Pick<Link>, took: Duration, ending: Ending) -> Self {
        let now = Instant::now();
        pick.call.due(now + TIMEOUT);
        Self { ends: now + took, ending, pick }
    }

    /// Whether it was answered.
    fn land(mut self) -> bool {
        if let Ending::Answered(outcome) = self.ending {
            self.pick.call.answered(outcome);
        }
        self.ending == Ending::Answered(Blame::None)
    }
}

/// What came of it.
#[derive(Debug)]
struct Report {
    failed: u32,
    /// Calls that the ill endpoint got while it was ill.
    ill: u32,
}

async fn experiment(illness: Illness) -> Report {
    let bench = Bench::new(&NAMES);
    let begin = Instant::now();
    let mut flights = BinaryHeap::new();
    let mut report = Report { failed: 0, ill: 0 };
    for call in 0..CALLS {
        advance(MS).await;
        bench.picker.serve_waiters();
        let now = Instant::now();
        while flights.peek().is_some_and(|flight: &Flight| flight.ends <= now) {
            report.failed += u32::from(!flights.pop().expect("it is there").land());
        }
        let pick = bench.pick().expect("ready");
        let is_ill = pick.connection.name == "ill" && (15..45).contains(&(now - begin).as_secs());
        let (took, ending) = if is_ill {
            report.ill += 1;
            illness(report.ill)
        } else {
            (162 * MS + MS * (call * 7919 % 11), Ending::Answered(Blame::None))
        };
        flights.push(Flight::new(pick, took, ending));
    }
    report
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_slower_than_callers_wait_fails_hardly_any_call() {
    let report = experiment(|_| (TIMEOUT, Ending::TimedOut)).await;
    assert!(report.failed < 60, "99.9 % of 60,000: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_at_once_fails_hardly_any_call() {
    let report = experiment(|_| (MS, Ending::Answered(Blame::Failed))).await;
    assert!(report.failed < 30, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_every_second_call_is_starved() {
    let report = experiment(|call| {
        let outcome = if call % 2 == 0 { Blame::Failed } else { Blame::None };
        (167 * MS, Ending::Answered(outcome))
    })
    .await;
    assert!(report.ill < 300, "a fair share would be 2,700: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_silent_is_starved_although_callers_go_elsewhere_before_its_time_is_over() {
    let report = experiment(|_| (2 * 172 * MS, Ending::GivenUp)).await;
    assert!(report.ill < 150, "a fair share would be 2,700: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn all_are_used_while_all_are_well() {
    let report = experiment(|_| (167 * MS, Ending::Answered(Blame::None))).await;
    assert_eq!(report.failed, 0);
    assert!((2300..3100).contains(&report.ill), "{report:?}");
}
