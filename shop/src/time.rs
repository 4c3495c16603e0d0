//! Times: in memory as milliseconds since the Unix epoch, on the wire as `google.protobuf.Timestamp`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// The first and the last time that a `google.protobuf.Timestamp` may have: of the years 1 and 9999.
const MIN_MS: i64 = -62_135_596_800_000;
const MAX_MS: i64 = 253_402_300_799_999;

/// The wall clock, in milliseconds since the Unix epoch, whatever it was set to. For the edges only: rules get their time with
/// the input.
pub fn now_ms() -> i64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since).min(MAX_MS),
        Err(before) => (-ms(before.duration())).max(MIN_MS),
    }
}

/// A time on the wire; the nearest that can stand there.
pub fn timestamp(ms: i64) -> Timestamp {
    let ms = ms.clamp(MIN_MS, MAX_MS);
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).expect("less than a second is less than 10^9 nanos");
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_before_1970_or_beyond_what_can_be_written_is_told_all_the_same() {
        assert_eq!(ms(UNIX_EPOCH - Duration::from_millis(1_500)), -1_500);
        assert_eq!(ms(UNIX_EPOCH + Duration::from_secs(1 << 50)), MAX_MS);
        assert_eq!(ms(UNIX_EPOCH - Duration::from_secs(1 << 50)), MIN_MS);
        let written = |ms: i64| prost_types::Timestamp::to_string(&timestamp(ms));
        assert_eq!(written(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MIN), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn times_keep_their_milliseconds_before_and_after_the_epoch() {
        assert_eq!(timestamp(1_500), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
    }
}
