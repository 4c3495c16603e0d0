//! Times: in memory as milliseconds since the Unix epoch, on the wire as `google.protobuf.Timestamp`.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// The wall clock, in milliseconds since the Unix epoch. For the edges only: rules get their time with the input.
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since_epoch.as_millis()).expect("the clock is before the year 292,000,000")
}

/// A time on the wire.
pub fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).expect("less than a second is less than 10^9 nanos");
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds_before_and_after_the_epoch() {
        assert_eq!(timestamp(1_500), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
    }
}
