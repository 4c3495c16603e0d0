//! Durations as people type them.

use std::{ops::RangeInclusive, time::Duration};

use meshwork::duration::{Shown, UNITS};

/// The longest that is read where no shorter one is asked for: a year.
const MAX: Duration = Duration::from_secs(8760 * 3600);

/// A text that is not a duration, or not one that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {}-{}, as a whole number with its unit: ms, s, m or h", Shown(*.0.start()), Shown(*.0.end()))]
pub struct InvalidDuration(RangeInclusive<Duration>);

/// Reads a duration such as `30s`, `500ms`, `2m` or `1h`, up to a year.
///
/// # Errors
/// [`InvalidDuration`].
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    within(text, Duration::ZERO..=MAX)
}

/// What reads a duration of this range, as a `value_parser`; its error names the range.
pub fn duration_in(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, InvalidDuration> + Clone + Send + Sync + 'static {
    move |text| within(text, range.clone())
}

fn within(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, InvalidDuration> {
    read(text).filter(|duration| range.contains(duration)).ok_or(InvalidDuration(range))
}

fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    unit.checked_mul(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "1 s", "99999999999s", "4294967295m", "4294967295h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_duration_out_of_its_range_is_refused_with_the_range_and_the_units() {
        let parse = duration_in(Duration::from_millis(1)..=Duration::from_secs(7200));
        assert!(parse("1ms").is_ok() && parse("2h").is_ok());
        for bad in ["0s", "121m", "4294967295m", "soon"] {
            let error = parse(bad).expect_err(bad).to_string();
            assert_eq!(error, "must be 1ms-2h, as a whole number with its unit: ms, s, m or h", "{bad}");
        }
    }
}
