//! Durations in messages.

use std::time::Duration;

/// The duration that a message carries. `None`: it is negative, or not well formed.
pub fn duration(prost_types::Duration { seconds, nanos }: prost_types::Duration) -> Option<Duration> {
    // By hand, because prost's conversion overflows on i64::MIN seconds.
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}
