//! Deadlines: when a call must be over, for itself and for every call that it makes.
//!
//! On the wire a deadline is gRPC's `grpc-timeout`, the time that is left; inside a process it is an [`Instant`]. The
//! server sets the inbound deadline as a request extension and as [`current`]; the channel clamps outgoing calls to it.
//! A task that a handler spawns is on its own: pass [`current`] on with [`scope`] if it works for the call.

use std::{fmt::Write as _, future::Future, time::Duration};

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

/// gRPC's header for the time that a call has left.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// `grpc-timeout` has at most eight digits.
const MAX_DIGITS: usize = 8;
const MAX_VALUE: u128 = 99_999_999;

/// Its units, from the finest: letter and nanoseconds.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

tokio::task_local! {
    static CURRENT: Deadline;
}

/// When a call must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// That far from now. A timeout beyond what the clock can tell is read as 30 years.
    pub fn after(timeout: Duration) -> Self {
        const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
        Self(Instant::now() + timeout.min(NEVER))
    }

    /// The time that is left; zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.0 <= Instant::now()
    }
}

/// The deadline of the call that this task works for.
pub fn current() -> Option<Deadline> {
    CURRENT.try_get().ok()
}

/// Runs `work` as part of a call with that deadline: [`current`] returns it, and outgoing calls are clamped to it. Nothing is
/// cut here.
pub fn scope<F: Future>(deadline: Deadline, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(deadline, work)
}

/// The same for work that does not wait.
pub(crate) fn scope_sync<R>(deadline: Deadline, work: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(deadline, work)
}

/// The value of a `grpc-timeout` header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n")]
pub struct InvalidTimeout;

/// Reads the value of a `grpc-timeout` header.
pub fn parse_timeout(value: &HeaderValue) -> Result<Duration, InvalidTimeout> {
    let (unit, digits) = value.as_bytes().split_last().ok_or(InvalidTimeout)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidTimeout);
    }
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit).ok_or(InvalidTimeout)?;
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    // Eight digits of hours overflow u64 nanoseconds, so the multiplication is done by Duration.
    let number = u32::try_from(number).map_err(|_| InvalidTimeout)?;
    Ok(Duration::from_nanos(*nanos) * number)
}

/// Writes the value of a `grpc-timeout` header: in the finest unit that fits, rounded down, so that a callee never has
/// longer than its caller.
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let (letter, number) = UNITS
        .iter()
        .map(|(letter, unit)| (*letter, nanos / u128::from(*unit)))
        .find(|(_, number)| *number <= MAX_VALUE)
        .unwrap_or((b'H', MAX_VALUE));
    let mut text = String::with_capacity(MAX_DIGITS + 1);
    write!(text, "{number}{}", char::from(letter)).expect("writing to a String does not fail");
    HeaderValue::try_from(text).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, InvalidTimeout> {
        parse_timeout(&HeaderValue::from_str(text).expect("a header value"))
    }

    #[test]
    fn every_unit_is_read() {
        for (text, nanos) in
            [("7n", 7), ("7u", 7_000), ("7m", 7_000_000), ("0S", 0), ("2M", 120_000_000_000), ("1H", 3_600_000_000_000)]
        {
            assert_eq!(parse(text).map(|timeout| timeout.as_nanos()), Ok(nanos), "{text}");
        }
        assert_eq!(parse("99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for text in ["", "S", "1", "123456789S", "-1S", "1.5S", "1s", "1 S", "+1S"] {
            assert_eq!(parse(text), Err(InvalidTimeout), "{text:?}");
        }
    }

    #[test]
    fn a_written_timeout_is_read_back_and_never_grows() {
        for nanos in [0, 1, 99_999_999, 100_000_000, 123_456_789_123, 10_u64.pow(18), u64::MAX] {
            let timeout = Duration::from_nanos(nanos);
            let back = parse_timeout(&format_timeout(timeout)).expect("our own format");
            assert!(back <= timeout, "{timeout:?} became {back:?}");
            assert!(timeout - back <= timeout / 100_000, "{timeout:?} became {back:?}");
        }
        assert_eq!(format_timeout(Duration::MAX), "99999999H");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_says_its_deadline_and_ends() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(current(), None);
        assert_eq!(scope(deadline, async { current() }).await, Some(deadline));
        assert_eq!(current(), None);

        assert_eq!(deadline.remaining(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_longest_timeout_is_a_deadline() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
    }
}
