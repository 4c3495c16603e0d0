//! Durations as people read them.

use std::{fmt, time::Duration};

/// The units that people type, the largest first.
pub const UNITS: [(&str, Duration); 4] = [
    ("h", Duration::from_secs(3600)),
    ("m", Duration::from_secs(60)),
    ("s", Duration::from_secs(1)),
    ("ms", Duration::from_millis(1)),
];

/// A duration in its largest unit that makes it a whole number, as every flag, error and table has it: `90s`, `1h`, `250ms`.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        match UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(unit.as_nanos())) {
            Some((name, unit)) => write!(f, "{}{name}", nanos / unit.as_nanos()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit_and_never_rounded() {
        for (micros, text) in [
            (0, "0s"),
            (1_500, "1.5ms"),
            (250_000, "250ms"),
            (1_500_000, "1500ms"),
            (60_000_000, "1m"),
            (90_000_000, "90s"),
            (86_400_000_000, "24h"),
        ] {
            assert_eq!(Shown(Duration::from_micros(micros)).to_string(), text);
        }
    }
}
