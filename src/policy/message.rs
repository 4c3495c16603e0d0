//! A policy as the contract's message, with every field set: to be stored or shown.

use std::time::Duration;

use super::{EjectionPolicy, Policy, RetryPolicy, SplitPolicy, ZonePolicy};
use crate::contract::meshwork::registry::v1 as contract;

impl Policy {
    /// The message that the policy is read from again, of `service`.
    pub(crate) fn message(&self, service: &str) -> contract::Policy {
        contract::Policy {
            service: service.to_owned(),
            timeout: self.timeout.and_then(duration),
            retry: Some(self.retry.message()),
            ejection: Some(self.ejection.message()),
            split: self.split.as_ref().map(SplitPolicy::message),
            zones: Some(self.zones.message()),
            ..contract::Policy::default()
        }
    }
}

impl RetryPolicy {
    fn message(&self) -> contract::RetryPolicy {
        contract::RetryPolicy {
            max_attempts: Some(self.max_attempts),
            budget_percent: Some(self.budget_percent),
            budget_min_per_second: Some(self.budget_min_per_second),
            backoff_min: duration(self.backoff_min),
            backoff_max: duration(self.backoff_max),
            hedging: Some(self.hedge_after.is_some()),
            hedging_min_delay: self.hedge_after.and_then(duration),
        }
    }
}

impl EjectionPolicy {
    fn message(&self) -> contract::EjectionPolicy {
        contract::EjectionPolicy {
            consecutive_failures: Some(self.consecutive_failures),
            base_time: duration(self.base_time),
            max_time: duration(self.max_time),
            max_ejected_percent: Some(self.max_ejected_percent),
        }
    }
}

impl SplitPolicy {
    fn message(&self) -> contract::SplitPolicy {
        contract::SplitPolicy { weights: self.weights.clone() }
    }
}

impl ZonePolicy {
    fn message(&self) -> contract::ZonePolicy {
        contract::ZonePolicy { same_zone_first: Some(self.same_zone_first) }
    }
}

/// Always there: no duration of a policy is longer than an hour.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_message_of_a_policy_says_all_of_it() {
        let policy = Policy {
            timeout: Some(Duration::from_millis(1500)),
            retry: RetryPolicy {
                max_attempts: 7,
                budget_percent: 8,
                budget_min_per_second: 9,
                backoff_min: Duration::from_millis(10),
                backoff_max: Duration::from_millis(11),
                hedge_after: Some(Duration::from_millis(12)),
            },
            ejection: EjectionPolicy {
                consecutive_failures: 13,
                base_time: Duration::from_millis(140),
                max_time: Duration::from_millis(150),
                max_ejected_percent: 16,
            },
            split: Some(SplitPolicy { weights: BTreeMap::from([("v1".into(), 95), ("v2".into(), 0)]) }),
            zones: ZonePolicy { same_zone_first: false },
        };
        let unhedged = Policy { retry: RetryPolicy { hedge_after: None, ..policy.retry.clone() }, ..policy.clone() };
        for policy in [policy, unhedged, Policy::default()] {
            let message = policy.message("order");
            assert_eq!(message.service, "order");
            assert_eq!(Policy::try_from(&message).expect("it was good"), policy);
        }
    }
}
