//! What a benchmark writes to a caller's stdin, and reads from its stdout: one line of JSON each way for each slice.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// What to do in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Calls under way at a time.
    pub in_flight: usize,
    /// For how long new calls begin.
    pub time: Duration,
}

/// What came of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Calls that were answered.
    pub calls: u64,
    /// From the first call's beginning to the last one's end.
    pub took: Duration,
    /// CPU time of the process meanwhile, user and system.
    pub cpu: Duration,
    /// The latency that half of the calls did not exceed.
    pub p50: Duration,
    /// The latency that 99 % of the calls did not exceed.
    pub p99: Duration,
    /// What failed, by kind, with how often.
    pub failures: BTreeMap<String, u64>,
}

impl Slice {
    /// Calls answered each second.
    pub fn calls_per_s(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }

    /// CPU time of the caller's process for each call, microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.calls as f64
    }

    /// The latency that half of the calls did not exceed, microseconds.
    pub fn p50_us(&self) -> f64 {
        self.p50.as_secs_f64() * 1e6
    }

    /// The latency that 99 % of the calls did not exceed, microseconds.
    pub fn p99_us(&self) -> f64 {
        self.p99.as_secs_f64() * 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_survives_the_wire_to_the_nanosecond() {
        let slice = Slice {
            calls: 2_000,
            took: Duration::from_nanos(1_000_000_001),
            cpu: Duration::from_millis(80),
            p50: Duration::from_nanos(104_447),
            p99: Duration::from_nanos(434_175),
            failures: BTreeMap::from([("Echo: UNAVAILABLE\n".to_owned(), 3)]),
        };
        let line = serde_json::to_string(&slice).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Slice>(&line).unwrap(), slice);
    }

    #[test]
    fn costs_are_for_each_call() {
        let slice =
            Slice { calls: 2_000, took: Duration::from_secs(2), cpu: Duration::from_millis(80), ..Slice::default() };
        assert!((slice.calls_per_s() - 1_000.0).abs() < 1e-9);
        assert!((slice.cpu_us() - 40.0).abs() < 1e-9);
    }
}
