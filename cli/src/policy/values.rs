//! The values of a policy, as people read them.

use std::time::Duration;

use meshwork::{
    contract::meshwork::registry::v1 as contract,
    duration::Shown,
    policy::{Policy, SplitPolicy},
};

use crate::error::Error;

/// One value.
#[derive(Debug)]
pub(super) struct Value {
    /// Its name in the contract.
    pub(super) field: &'static str,
    /// What holds.
    pub(super) text: String,
    /// Whether the policy says so; otherwise it is the default.
    pub(super) set: bool,
}

/// All values of a policy, in the order of the contract.
pub(super) fn of(told: &contract::Policy) -> Result<Vec<Value>, Error> {
    let Policy { timeout, retry, ejection, split, zones } =
        Policy::try_from(told).map_err(|violations| Error::StrangePolicy(violations.to_string()))?;
    let (told_retry, told_ejection) = (told.retry.unwrap_or_default(), told.ejection.unwrap_or_default());
    let told_zones = told.zones.unwrap_or_default();
    let value = |field, text, set| Value { field, text, set };
    let number = |field, number: u32, told: Option<u32>| value(field, number.to_string(), told.is_some());
    let time = |field, time: Duration, told: Option<_>| value(field, Shown(time).to_string(), told.is_some());
    let switch = |field, on, told: Option<bool>| value(field, if on { "on" } else { "off" }.into(), told.is_some());
    let hedge_after = retry.hedge_after.map_or_else(|| "never".into(), |after| Shown(after).to_string());
    Ok(vec![
        value(
            "timeout",
            timeout.map_or_else(|| "none".into(), |timeout| Shown(timeout).to_string()),
            timeout.is_some(),
        ),
        number("retry.max_attempts", retry.max_attempts, told_retry.max_attempts),
        number("retry.budget_percent", retry.budget_percent, told_retry.budget_percent),
        number("retry.budget_min_per_second", retry.budget_min_per_second, told_retry.budget_min_per_second),
        time("retry.backoff_min", retry.backoff_min, told_retry.backoff_min),
        time("retry.backoff_max", retry.backoff_max, told_retry.backoff_max),
        switch("retry.hedging", retry.hedge_after.is_some(), told_retry.hedging),
        value("retry.hedging_min_delay", hedge_after, told_retry.hedging_min_delay.is_some()),
        number("ejection.consecutive_failures", ejection.consecutive_failures, told_ejection.consecutive_failures),
        time("ejection.base_time", ejection.base_time, told_ejection.base_time),
        time("ejection.max_time", ejection.max_time, told_ejection.max_time),
        number("ejection.max_ejected_percent", ejection.max_ejected_percent, told_ejection.max_ejected_percent),
        value("split", split.as_ref().map_or_else(|| "none".into(), shares), split.is_some()),
        switch("zones.same_zone_first", zones.same_zone_first, told_zones.same_zone_first),
    ])
}

/// As `meshwork split` takes it.
fn shares(split: &SplitPolicy) -> String {
    split.weights.iter().map(|(version, share)| format!("{version}={share}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(policy: &contract::Policy) -> Vec<String> {
        let values = of(policy).expect("good");
        values.into_iter().map(|v| format!("{} {} {}", v.field, v.text, v.set)).collect()
    }

    #[test]
    fn what_holds_is_shown_with_whether_it_was_set() {
        let defaults = lines(&contract::Policy::default());
        assert!(defaults.iter().all(|line| line.ends_with(" false")), "{defaults:?}");
        assert!(defaults.contains(&"retry.backoff_max 250ms false".to_owned()), "{defaults:?}");
        assert!(defaults.contains(&"ejection.max_time 1m false".to_owned()), "as its flag takes it: {defaults:?}");

        let weights = [("v1".to_owned(), 95), ("v2".to_owned(), 5)].into();
        let set = lines(&contract::Policy {
            split: Some(contract::SplitPolicy { weights }),
            retry: Some(contract::RetryPolicy { hedging: Some(false), ..Default::default() }),
            ..Default::default()
        });
        assert!(set.contains(&"split v1=95 v2=5 true".to_owned()), "{set:?}");
        assert!(set.contains(&"retry.hedging off true".to_owned()), "{set:?}");
    }
}
