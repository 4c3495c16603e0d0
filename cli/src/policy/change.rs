//! What flags change of a policy.

use std::time::Duration;

use meshwork::contract::meshwork::registry::v1::Policy;

use crate::args::{PolicyChange, Setting};

/// Changes what the flags name, and nothing else. Values are taken as they are: the registry says what it accepts.
pub(super) fn apply(change: &PolicyChange, policy: &mut Policy) {
    duration(change.timeout, &mut policy.timeout);

    let retry = policy.retry.get_or_insert_default();
    plain(change.max_attempts, &mut retry.max_attempts);
    plain(change.budget_percent, &mut retry.budget_percent);
    plain(change.budget_min_per_second, &mut retry.budget_min_per_second);
    duration(change.backoff_min, &mut retry.backoff_min);
    duration(change.backoff_max, &mut retry.backoff_max);
    plain(change.hedging, &mut retry.hedging);
    duration(change.hedging_min_delay, &mut retry.hedging_min_delay);

    let ejection = policy.ejection.get_or_insert_default();
    plain(change.consecutive_failures, &mut ejection.consecutive_failures);
    duration(change.ejection_base_time, &mut ejection.base_time);
    duration(change.ejection_max_time, &mut ejection.max_time);
    plain(change.max_ejected_percent, &mut ejection.max_ejected_percent);

    plain(change.same_zone_first, &mut policy.zones.get_or_insert_default().same_zone_first);
}

fn plain<T>(setting: Option<Setting<T>>, field: &mut Option<T>) {
    match setting {
        None => {}
        Some(Setting::Default) => *field = None,
        Some(Setting::To(value)) => *field = Some(value),
    }
}

fn duration(setting: Option<Setting<Duration>>, field: &mut Option<prost_types::Duration>) {
    let setting = setting.map(|setting| match setting {
        Setting::Default => Setting::Default,
        Setting::To(duration) => Setting::To(duration.try_into().expect("a flag's duration has 32 bits")),
    });
    plain(setting, field);
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::RetryPolicy;

    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        let retry = RetryPolicy { max_attempts: Some(2), hedging: Some(true), ..RetryPolicy::default() };
        let mut policy = Policy { retry: Some(retry), ..Policy::default() };
        let change = PolicyChange {
            timeout: Some(Setting::To(Duration::from_millis(1500))),
            max_attempts: Some(Setting::Default),
            same_zone_first: Some(Setting::To(false)),
            ..PolicyChange::default()
        };

        apply(&change, &mut policy);

        assert_eq!(policy.timeout, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(policy.retry, Some(RetryPolicy { max_attempts: None, ..retry }));
        assert_eq!(policy.zones.and_then(|zones| zones.same_zone_first), Some(false));
    }
}
