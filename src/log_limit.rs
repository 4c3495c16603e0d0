//! Limits how often a line that a peer can cause is logged: the first few each minute are logged, the rest counted.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::LazyLock,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// For this long the lines are counted together.
const PERIOD: Duration = Duration::from_secs(60);

/// Causes of one kind of failure that are logged each minute.
pub const MAX_CAUSES: u32 = 10;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Lets a number of lines a minute through. Kept by the type that logs, or as a `static` beside a line that has no owner, as tracing
/// keeps its call sites.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    period: Mutex<Period>,
}

#[derive(Debug)]
struct Period {
    begin: Option<Instant>,
    logged: u32,
    /// The hashes of the causes that were logged.
    causes: Vec<u64>,
    left_out: u64,
}

impl LogLimit {
    /// Lets `lines` a minute through.
    pub const fn new(lines: u32) -> Self {
        Self { lines, period: Mutex::new(Period { begin: None, logged: 0, causes: Vec::new(), left_out: 0 }) }
    }

    /// Whether to log now, and how many lines were suppressed since the last; that belongs at the end of the message.
    pub fn pass(&self) -> Option<LeftOut> {
        self.pass_if(|_| true)
    }

    /// As [`pass`](Self::pass), but each cause only once a minute, so that a frequent one does not suppress the others.
    pub fn pass_once(&self, cause: impl Hash) -> Option<LeftOut> {
        let cause = HASHER.hash_one(cause);
        self.pass_if(|causes| {
            let is_new = !causes.contains(&cause);
            if is_new {
                causes.push(cause);
            }
            is_new
        })
    }

    fn pass_if(&self, wanted: impl FnOnce(&mut Vec<u64>) -> bool) -> Option<LeftOut> {
        let now = Instant::now();
        let mut period = self.period.lock();
        if period.begin.is_none_or(|begin| now.duration_since(begin) >= PERIOD) {
            period.begin = Some(now);
            period.logged = 0;
            period.causes.clear();
        }
        if period.logged < self.lines && wanted(&mut period.causes) {
            period.logged += 1;
            return Some(LeftOut(std::mem::take(&mut period.left_out)));
        }
        period.left_out += 1;
        None
    }
}

/// The lines that were left out: nothing, or `; and 99 more times before, which were not logged`. The next line tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("; and once more before, which was not logged"),
            count => write!(f, "; and {count} more times before, which were not logged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_once_a_minute_and_is_counted_meanwhile() {
        let limit = LogLimit::new(1);
        let said = |limit: &LogLimit| limit.pass().map(|left_out| left_out.to_string());
        assert_eq!(said(&limit).as_deref(), Some(""));
        for _ in 0..99 {
            assert_eq!(said(&limit), None);
        }
        tokio::time::advance(PERIOD).await;
        assert_eq!(said(&limit).as_deref(), Some("; and 99 more times before, which were not logged"));
        assert_eq!(said(&limit), None);
        tokio::time::advance(PERIOD * 2).await;
        assert_eq!(said(&limit).as_deref(), Some("; and once more before, which was not logged"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frequent_cause_does_not_suppress_the_others() {
        let limit = LogLimit::new(3);
        for _ in 0..2 {
            assert!(limit.pass_once("frequent").is_some());
            assert!((0..100).all(|_| limit.pass_once("frequent").is_none()));
            assert_eq!(limit.pass_once("rare"), Some(LeftOut(100)));
            let logged: Vec<_> = (0..100).filter_map(|number| limit.pass_once(number)).collect();
            assert_eq!(logged.len(), 1, "they are bounded together");
            tokio::time::advance(PERIOD).await;
            assert_eq!(limit.pass(), Some(LeftOut(99)));
            tokio::time::advance(PERIOD).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_differ_have_a_number_of_them_a_minute() {
        let limit = LogLimit::new(3);
        for _ in 0..2 {
            let logged: Vec<_> = (0..10).filter_map(|_| limit.pass()).collect();
            assert_eq!(logged.len(), 3);
            tokio::time::advance(PERIOD).await;
        }
    }
}
