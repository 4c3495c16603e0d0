//! Lifetimes of certificates as people type them: longer than other durations.

use std::{fmt, ops::RangeInclusive, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The units, the largest first; a year has 365 days.
const UNITS: [(&str, Duration); 4] =
    [("y", Duration::from_secs(365 * DAY.as_secs())), ("d", DAY), ("h", Duration::from_secs(3600)), ("m", MINUTE)];
const MINUTE: Duration = Duration::from_secs(60);

/// A text that is not a lifetime, or not one that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {}-{}, as a whole number with its unit: m, h, d or y", Shown(*.0.start()), Shown(*.0.end()))]
pub struct InvalidLifetime(RangeInclusive<Duration>);

/// What reads a lifetime of this range, as a `value_parser`; its error names the range.
pub(super) fn lifetime_in(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, InvalidLifetime> + Clone + Send + Sync + 'static {
    move |text| read(text).filter(|lifetime| range.contains(lifetime)).ok_or_else(|| InvalidLifetime(range.clone()))
}

fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    unit.checked_mul(digits.parse().ok()?)
}

/// A lifetime in its largest unit that makes it a whole number.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, unit)| self.0.as_secs().is_multiple_of(unit.as_secs()));
        let (name, unit) = whole.unwrap_or(("m", MINUTE));
        write!(f, "{}{name}", self.0.as_secs() / unit.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_days_and_years_and_is_refused_with_its_range() {
        let parse = lifetime_in(MINUTE..=90 * DAY);
        for (text, lifetime) in [("1m", MINUTE), ("24h", DAY), ("90d", 90 * DAY)] {
            assert_eq!(parse(text), Ok(lifetime), "{text}");
        }
        for bad in ["", "0m", "59s", "91d", "1y", "1.5h", "-1h", "24", "d", "99999999999y", "4294967295y"] {
            let error = parse(bad).expect_err(bad).to_string();
            assert_eq!(error, "must be 1m-90d, as a whole number with its unit: m, h, d or y", "{bad}");
        }
        assert_eq!(lifetime_in(DAY..=30 * 365 * DAY)("10y"), Ok(3650 * DAY));
    }
}
