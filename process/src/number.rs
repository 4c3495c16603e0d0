//! Whole numbers as people type them.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

/// A text that is not a whole number, or not one that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number, {first}-{last}")]
pub struct InvalidNumber {
    first: String,
    last: String,
}

/// What reads a number of this range, as a `value_parser`; its error names the range.
pub fn number_in<N>(
    range: RangeInclusive<N>,
) -> impl Fn(&str) -> Result<N, InvalidNumber> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| InvalidNumber { first: range.start().to_string(), last: range.end().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_number_of_the_range_is_refused_with_the_range() {
        let parse = number_in(0..=65000_u16);
        assert_eq!((parse("0"), parse("65000")), (Ok(0), Ok(65000)));
        for bad in ["", "-1", "1.5", "65001", "99999999999999999999", "many", " 1"] {
            assert_eq!(parse(bad).expect_err(bad).to_string(), "must be a whole number, 0-65000", "{bad}");
        }
    }
}
