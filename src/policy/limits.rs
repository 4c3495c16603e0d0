//! The limits of a policy's values, as in the contract.

use std::{ops::RangeInclusive, time::Duration};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How long a call may wait for its answer to begin.
pub const TIMEOUT: RangeInclusive<Duration> = MILLISECOND..=HOUR;
/// How often a call may be sent altogether.
pub const MAX_ATTEMPTS: RangeInclusive<u32> = 1..=10;
/// Of calls, or of instances.
pub const PERCENT: RangeInclusive<u32> = 0..=100;
/// Retries per second that are free of the budget.
pub const BUDGET_MIN_PER_SECOND: RangeInclusive<u32> = 0..=1000;
/// A wait before a retry or a hedge.
pub const BACKOFF: RangeInclusive<Duration> = MILLISECOND..=MINUTE;
/// Failures in a row after which an instance is ejected.
pub const CONSECUTIVE_FAILURES: RangeInclusive<u32> = 1..=1000;
/// For how long an instance is ejected.
pub const EJECTION_TIME: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
/// Versions of a split.
pub const MAX_VERSIONS: usize = 16;
/// The share of a version in a split.
pub const VERSION_WEIGHT: RangeInclusive<u32> = 0..=1000;
