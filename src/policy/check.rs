//! A policy of the contract, checked field by field against the limits that it states there, with its defaults filled in.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, time::Duration};

use super::{
    EjectionPolicy, Policy, RetryPolicy, SplitPolicy, ZonePolicy,
    limits::{
        BACKOFF, BUDGET_MIN_PER_SECOND, CONSECUTIVE_FAILURES, EJECTION_TIME, MAX_ATTEMPTS, MAX_VERSIONS, PERCENT,
        TIMEOUT, VERSION_WEIGHT,
    },
};
use crate::{
    contract::meshwork::registry::v1 as contract,
    duration::Shown,
    instance::check_text,
    rpc::{Violations, duration},
};

/// All of its fields that are wrong are named, as fields of a request with a `policy`.
impl TryFrom<&contract::Policy> for Policy {
    type Error = Violations;

    fn try_from(told: &contract::Policy) -> Result<Self, Violations> {
        let mut check = Check(Violations::default());
        let policy = Self {
            timeout: told.timeout.map(|timeout| check.duration("timeout", Some(timeout), TIMEOUT, *TIMEOUT.end())),
            retry: check.retry(&told.retry.unwrap_or_default()),
            ejection: check.ejection(&told.ejection.unwrap_or_default()),
            split: told.split.as_ref().map(|split| check.split(split)),
            zones: zones(told.zones.unwrap_or_default()),
        };
        if check.0.is_empty() { Ok(policy) } else { Err(check.0) }
    }
}

/// Notes what is wrong. A field that is wrong goes on as its default, so that the others are still looked at.
struct Check(Violations);

impl Check {
    fn retry(&mut self, told: &contract::RetryPolicy) -> RetryPolicy {
        let default = RetryPolicy::default();
        let backoff_min = self.duration("retry.backoff_min", told.backoff_min, BACKOFF, default.backoff_min);
        let hedge_after = self.duration(
            "retry.hedging_min_delay",
            told.hedging_min_delay,
            BACKOFF,
            default.hedge_after.unwrap_or(*BACKOFF.end()),
        );
        RetryPolicy {
            max_attempts: self.number("retry.max_attempts", told.max_attempts, MAX_ATTEMPTS, default.max_attempts),
            budget_percent: self.number("retry.budget_percent", told.budget_percent, PERCENT, default.budget_percent),
            budget_min_per_second: self.number(
                "retry.budget_min_per_second",
                told.budget_min_per_second,
                BUDGET_MIN_PER_SECOND,
                default.budget_min_per_second,
            ),
            backoff_min,
            backoff_max: self.duration(
                "retry.backoff_max",
                told.backoff_max,
                backoff_min..=*BACKOFF.end(),
                default.backoff_max.max(backoff_min),
            ),
            hedge_after: told.hedging.unwrap_or(default.hedge_after.is_some()).then_some(hedge_after),
        }
    }

    fn ejection(&mut self, told: &contract::EjectionPolicy) -> EjectionPolicy {
        let default = EjectionPolicy::default();
        let base_time = self.duration("ejection.base_time", told.base_time, EJECTION_TIME, default.base_time);
        EjectionPolicy {
            consecutive_failures: self.number(
                "ejection.consecutive_failures",
                told.consecutive_failures,
                CONSECUTIVE_FAILURES,
                default.consecutive_failures,
            ),
            base_time,
            max_time: self.duration(
                "ejection.max_time",
                told.max_time,
                base_time..=*EJECTION_TIME.end(),
                default.max_time.max(base_time),
            ),
            max_ejected_percent: self.number(
                "ejection.max_ejected_percent",
                told.max_ejected_percent,
                PERCENT,
                default.max_ejected_percent,
            ),
        }
    }

    fn split(&mut self, told: &contract::SplitPolicy) -> SplitPolicy {
        if let Err(description) = check_weights(&told.weights) {
            self.wrong("split.weights", description);
        }
        SplitPolicy { weights: told.weights.clone() }
    }

    fn number(&mut self, field: &str, told: Option<u32>, range: RangeInclusive<u32>, default: u32) -> u32 {
        match told {
            None => default,
            Some(number) if range.contains(&number) => number,
            Some(_) => {
                self.out_of(field, range.start(), range.end());
                default
            }
        }
    }

    fn duration(
        &mut self,
        field: &str,
        told: Option<prost_types::Duration>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        match told.map(duration) {
            None => default,
            Some(Some(duration)) if range.contains(&duration) => duration,
            Some(_) => {
                self.out_of(field, Shown(*range.start()), Shown(*range.end()));
                default
            }
        }
    }

    fn out_of(&mut self, field: &str, first: impl Display, last: impl Display) {
        self.wrong(field, &format!("must be {first}-{last}"));
    }

    fn wrong(&mut self, field: &str, description: &str) {
        self.0.add(&format!("policy.{field}"), description);
    }
}

fn zones(told: contract::ZonePolicy) -> ZonePolicy {
    ZonePolicy { same_zone_first: told.same_zone_first.unwrap_or(ZonePolicy::default().same_zone_first) }
}

fn check_weights(weights: &BTreeMap<String, u32>) -> Result<(), &'static str> {
    if !(1..=MAX_VERSIONS).contains(&weights.len()) {
        return Err("must have 1-16 versions");
    }
    if !weights.keys().all(|version| !version.is_empty() && check_text(version).is_ok()) {
        return Err("a version must have 1-128 visible characters");
    }
    if !weights.values().all(|weight| VERSION_WEIGHT.contains(weight)) {
        return Err("weights must be 0-1000");
    }
    if weights.values().all(|weight| *weight == 0) { Err("at least one must be above 0") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> prost_types::Duration {
        prost_types::Duration::try_from(Duration::from_millis(ms)).expect("in range")
    }

    fn split(weights: &[(&str, u32)]) -> contract::SplitPolicy {
        contract::SplitPolicy {
            weights: weights.iter().map(|(version, weight)| ((*version).into(), *weight)).collect(),
        }
    }

    fn complaint(told: &contract::Policy) -> String {
        Policy::try_from(told).expect_err("it is wrong").to_string()
    }

    #[test]
    fn what_is_not_said_has_the_default() {
        let empty = contract::Policy {
            retry: Some(contract::RetryPolicy::default()),
            ejection: Some(contract::EjectionPolicy::default()),
            zones: Some(contract::ZonePolicy::default()),
            ..contract::Policy::default()
        };
        for told in [contract::Policy::default(), empty] {
            assert_eq!(Policy::try_from(&told).expect("good"), Policy::default());
        }
    }

    #[test]
    fn what_is_said_is_taken_at_its_word() {
        let told = contract::Policy {
            timeout: Some(ms(2000)),
            retry: Some(contract::RetryPolicy {
                max_attempts: Some(1),
                budget_percent: Some(0),
                budget_min_per_second: Some(0),
                backoff_min: Some(ms(300)),
                backoff_max: None,
                hedging: Some(false),
                hedging_min_delay: Some(ms(7)),
            }),
            ejection: Some(contract::EjectionPolicy {
                consecutive_failures: Some(1),
                base_time: Some(ms(100)),
                max_time: Some(ms(100)),
                max_ejected_percent: Some(0),
            }),
            split: Some(split(&[("v1", 95), ("v2", 0)])),
            zones: Some(contract::ZonePolicy { same_zone_first: Some(false) }),
            ..contract::Policy::default()
        };
        let long = Duration::from_millis(300);
        let expected = Policy {
            timeout: Some(Duration::from_secs(2)),
            retry: RetryPolicy {
                max_attempts: 1,
                budget_percent: 0,
                budget_min_per_second: 0,
                backoff_min: long,
                backoff_max: long,
                hedge_after: None,
            },
            ejection: EjectionPolicy {
                consecutive_failures: 1,
                base_time: Duration::from_millis(100),
                max_time: Duration::from_millis(100),
                max_ejected_percent: 0,
            },
            split: Some(SplitPolicy { weights: BTreeMap::from([("v1".into(), 95), ("v2".into(), 0)]) }),
            zones: ZonePolicy { same_zone_first: false },
        };
        assert_eq!(Policy::try_from(&told).expect("good"), expected);
    }

    #[test]
    fn every_field_that_is_wrong_is_named_with_what_is_accepted() {
        let told = contract::Policy {
            timeout: Some(ms(0)),
            retry: Some(contract::RetryPolicy {
                max_attempts: Some(0),
                budget_percent: Some(101),
                budget_min_per_second: Some(1001),
                backoff_min: Some(prost_types::Duration { seconds: i64::MIN, nanos: 0 }),
                backoff_max: Some(ms(24)),
                hedging: None,
                hedging_min_delay: Some(ms(60_001)),
            }),
            ejection: Some(contract::EjectionPolicy {
                consecutive_failures: Some(0),
                base_time: Some(ms(99)),
                max_time: Some(ms(999)),
                max_ejected_percent: Some(101),
            }),
            split: Some(split(&[("v1", 0)])),
            ..contract::Policy::default()
        };
        let expected = [
            "policy.timeout: must be 1ms-1h",
            "policy.retry.backoff_min: must be 1ms-1m",
            "policy.retry.hedging_min_delay: must be 1ms-1m",
            "policy.retry.max_attempts: must be 1-10",
            "policy.retry.budget_percent: must be 0-100",
            "policy.retry.budget_min_per_second: must be 0-1000",
            "policy.retry.backoff_max: must be 25ms-1m",
            "policy.ejection.base_time: must be 100ms-1h",
            "policy.ejection.consecutive_failures: must be 1-1000",
            "policy.ejection.max_time: must be 1s-1h",
            "policy.ejection.max_ejected_percent: must be 0-100",
            "policy.split.weights: at least one must be above 0",
        ];
        assert_eq!(complaint(&told).split("; ").collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_split_is_among_few_versions_with_names_and_bounded_weights() {
        let many: Vec<_> = (0..=MAX_VERSIONS).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(|version| (version.as_str(), 1)).collect();
        let long = "v".repeat(129);
        let cases: [(&[(&str, u32)], &str); 5] = [
            (&[], "must have 1-16 versions"),
            (&many, "must have 1-16 versions"),
            (&[("", 1)], "a version must have 1-128 visible characters"),
            (&[(&long, 1)], "a version must have 1-128 visible characters"),
            (&[("v1", 1001)], "weights must be 0-1000"),
        ];
        for (weights, expected) in cases {
            let told = contract::Policy { split: Some(split(weights)), ..contract::Policy::default() };
            assert_eq!(complaint(&told), format!("policy.split.weights: {expected}"));
        }
    }
}
