//! What a benchmark has found: rounds of named numbers, and the figures made from them. As a table and as JSON.
//!
//! A run in which anything failed has no figures: a fast wrong answer is not a measurement.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    figure::{median, rounded},
    machine::Machine,
};

/// Failures that are shown one by one; the rest is only counted.
const SHOWN_FAILURES: usize = 5;

/// Numbers by name, in the order in which they were measured. The unit is the end of the name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(String, f64)>);

impl Figures {
    /// Adds a number.
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// Puts another number in the place of one, or at the end.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.add(name, value),
        }
    }

    /// Adds the numbers of another part of the run.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &rounded(*value))?;
        }
        map.end()
    }
}

/// What failed, by kind, with how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Failures(BTreeMap<String, u64>);

impl Failures {
    /// Counts a failure. Failures of one kind have one text.
    pub fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Counts those of another part of the run as well.
    pub fn merge(&mut self, other: Self) {
        self.add_counted(other.0);
    }

    /// Counts failures that were counted elsewhere, by kind.
    pub fn add_counted(&mut self, counts: impl IntoIterator<Item = (String, u64)>) {
        for (what, count) in counts {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often something failed, of any kind.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// What a benchmark hands back.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// How it was measured, and what shared the machine, in a few sentences.
    pub setup: &'static str,
    /// Each round.
    pub rounds: Vec<Figures>,
    /// The result; [`medians`] of the rounds, unless the benchmark has a better rule.
    pub figures: Figures,
    /// What failed. Any failure voids the figures.
    pub failures: Failures,
}

/// A run of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The benchmark.
    pub name: &'static str,
    /// When it began, RFC 3339.
    date: String,
    /// How to repeat it.
    command: String,
    setup: &'static str,
    machine: Machine,
    rounds: Vec<Figures>,
    figures: Figures,
    failures: Failures,
}

impl Report {
    /// A report; without figures if something failed.
    pub fn new(name: &'static str, date: SystemTime, machine: Machine, outcome: RunOutcome) -> Self {
        let RunOutcome { setup, rounds, figures, failures } = outcome;
        let figures = if failures.is_empty() { figures } else { Figures::default() };
        let date = prost_types::Timestamp::from(date).to_string();
        Self { name, date, command: command(std::env::args().skip(1)), setup, machine, rounds, figures, failures }
    }

    /// Whether there are figures, and nothing failed.
    pub fn is_valid(&self) -> bool {
        self.failures.is_empty() && !self.figures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, memory_mb, kernel, fdatasync_ms, load_before } = &self.machine;
        writeln!(f, "{cpu}, {cores} cores, {memory_mb} MiB, Linux {kernel}")?;
        writeln!(f, "4 KiB fdatasync {fdatasync_ms:.2} ms, load before {load_before:.2}\n")?;
        writeln!(
            f,
            "{:<28} {:>12} {:>12} {:>12}",
            format!("{}, rounds: {}", self.name, self.rounds.len()),
            "figure",
            "min",
            "max"
        )?;
        for (name, value) in &self.figures.0 {
            let rounds: Vec<f64> = self.rounds.iter().filter_map(|round| round.get(name)).collect();
            let low = rounds.iter().copied().fold(*value, f64::min);
            let high = rounds.iter().copied().fold(*value, f64::max);
            writeln!(f, "{name:<28} {:>12} {:>12} {:>12}", rounded(*value), rounded(low), rounded(high))?;
        }
        if !self.failures.is_empty() {
            writeln!(f, "\nno figures, because of failures:")?;
            for (what, count) in self.failures.0.iter().take(SHOWN_FAILURES) {
                writeln!(f, "  {count} x {what}")?;
            }
            let more = self.failures.0.len().saturating_sub(SHOWN_FAILURES);
            if more > 0 {
                writeln!(f, "  and {more} other kinds")?;
            }
        }
        Ok(())
    }
}

/// Writes the report as JSON, as a whole or not at all.
pub fn write(report: &Report, path: &Path) -> io::Result<()> {
    let partial = path.with_extension("json.partial");
    fs::write(&partial, serde_json::to_string_pretty(report)? + "\n")?;
    fs::rename(partial, path)
}

/// For each number of the first round, its median over all rounds.
pub fn medians(rounds: &[Figures]) -> Figures {
    let mut figures = Figures::default();
    for (name, _) in rounds.first().map_or(&[][..], |round| &round.0) {
        let values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name)).collect();
        figures.add(name, median(&values));
    }
    figures
}

/// The largest of a number over all rounds, where the median would hide it; 0 of nothing.
pub fn worst(rounds: &[Figures], name: &str) -> f64 {
    rounds.iter().filter_map(|round| round.get(name)).fold(0.0, f64::max)
}

/// What this share of some times does not exceed, milliseconds; 0 of nothing.
pub fn quantile_ms(times: impl IntoIterator<Item = Duration>, quantile: f64) -> f64 {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let rank = (times.len() as f64 * quantile).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn command(args: impl Iterator<Item = String>) -> String {
    std::iter::once("cargo bench-mesh".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (name, value) in values {
            figures.add(*name, *value);
        }
        figures
    }

    fn report(failures: Failures) -> Report {
        let rounds = vec![
            figures(&[("orders_per_s", 5_000.0), ("p50_ms", 1.0)]),
            figures(&[("orders_per_s", 4_000.0), ("p50_ms", 9.0)]),
            figures(&[("orders_per_s", 6_000.0), ("p50_ms", 2.0)]),
        ];
        let outcome = RunOutcome { setup: "one process", figures: medians(&rounds), rounds, failures };
        Report::new("saga", SystemTime::UNIX_EPOCH, Machine::default(), outcome)
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times = || (1..=200).rev().map(Duration::from_millis);
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile_ms(times(), share)), [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(quantile_ms([], 0.99), 0.0);
    }

    #[test]
    fn one_bad_round_is_the_worst() {
        let rounds = [figures(&[("lost", 0.0)]), figures(&[("lost", 2.0)]), figures(&[("lost", 0.0)])];
        let mut all = medians(&rounds);
        assert_eq!(all, figures(&[("lost", 0.0)]));
        all.set("lost", worst(&rounds, "lost"));
        assert_eq!(all, figures(&[("lost", 2.0)]));
    }

    #[test]
    fn figures_are_medians_and_keep_their_order() {
        let json = serde_json::to_string(&report(Failures::default())).unwrap();
        assert!(json.contains(r#""figures":{"orders_per_s":5000.0,"p50_ms":2.0},"failures":{}"#), "{json}");
        assert!(json.contains(r#""date":"1970-01-01T00:00:00Z""#), "{json}");
    }

    #[test]
    fn the_table_has_the_spread_of_the_rounds() {
        let table = report(Failures::default()).to_string();
        let row = table.lines().find(|line| line.starts_with("p50_ms")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["p50_ms", "2", "1", "9"]);
        assert!(table.lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn a_failure_voids_the_figures() {
        let mut failures = Failures::default();
        failures.add("CreateOrder: UNAVAILABLE");
        failures.add("CreateOrder: UNAVAILABLE");
        let report = report(failures);
        assert!(!report.is_valid());
        assert!(report.to_string().contains("2 x CreateOrder: UNAVAILABLE"));
        assert!(serde_json::to_string(&report).unwrap().contains(r#""figures":{}"#));
    }

    #[test]
    fn numbers_are_rounded_to_four_digits() {
        assert_eq!(rounded(123_456.0), 123_456.0);
        assert_eq!(rounded(5_123.456), 5_123.0);
        assert_eq!(rounded(51.23456), 51.23);
        assert_eq!(rounded(0.001_234_56), 0.001_235);
        assert_eq!(rounded(0.0), 0.0);
    }

    #[test]
    fn the_report_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saga.json");
        write(&report(Failures::default()), &path).unwrap();
        let read: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["rounds"][1]["orders_per_s"], 4_000.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
