//! Policies: how clients treat the instances of a service.

use std::time::SystemTime;

use meshwork::{
    contract::meshwork::registry::v1::{EjectionPolicy, ListPoliciesResponse, Policy, RetryPolicy, ZonePolicy},
    policy,
    rpc::Violations,
    service_name::check_service_name,
};

use super::{Kept, Kind, PolicyError, Turn, check_etag, etag};

impl Kept for Policy {
    const KIND: Kind = Kind::Policy;
    type List = ListPoliciesResponse;

    fn name(&self) -> &str {
        &self.service
    }

    fn is_set(&self) -> bool {
        self.update_time.is_some()
    }

    fn read_back(self, now: SystemTime) -> Result<Self, Violations> {
        check_policy(&self)?;
        let update_time = self.update_time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(complete(self, update_time.unwrap_or(now)))
    }

    fn list(policies: Vec<Self>) -> ListPoliciesResponse {
        ListPoliciesResponse { policies, next_page_token: String::new() }
    }

    fn entries(list: ListPoliciesResponse) -> Vec<Self> {
        list.policies
    }
}

/// Whether a policy has a service, and values that clients accept.
pub(crate) fn check_policy(policy: &Policy) -> Result<(), Violations> {
    let mut violations = policy::Policy::try_from(policy).err().unwrap_or_default();
    violations.check("policy.service", check_service_name(&policy.service));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

impl Turn {
    /// Sets a policy that was checked; returns it as it is now, and whether that is new. Waits for the disk.
    pub(crate) fn set_policy(&self, asked: Policy, now: SystemTime) -> Result<(Policy, bool), PolicyError> {
        let kept = &self.store.0.policies;
        let mut policies = kept.latest().clone();
        let before = policies.remove(&asked.service).unwrap_or_else(|| none(&asked.service));
        let Some(after) = replace(&before, asked, now)? else { return Ok((before, false)) };
        if after.is_set() {
            if policies.len() >= Kind::Policy.limit() {
                return Err(PolicyError::TooMany(Kind::Policy));
            }
            policies.insert(after.service.clone(), after.clone());
        }
        kept.replace(policies)?;
        Ok((after, true))
    }
}

/// The policy of a service that none was set for: every field has its default.
pub(crate) fn none(service: &str) -> Policy {
    let policy = Policy { service: service.to_owned(), ..Policy::default() };
    Policy { etag: etag(&policy), ..policy }
}

/// Whether it leaves everything to the defaults.
pub(crate) fn says_nothing(policy: &Policy) -> bool {
    policy.etag == none(&policy.service).etag
}

/// What comes of `before` if `asked` is to take its place; `None`: it is the same already.
fn replace(before: &Policy, asked: Policy, now: SystemTime) -> Result<Option<Policy>, PolicyError> {
    let replaces = asked.etag.clone();
    let after = complete(asked, now);
    if after.etag == before.etag {
        return Ok(None);
    }
    check_etag(Kind::Policy, &replaces, &before.etag)?;
    Ok(Some(after))
}

/// A policy in normal form, with the fields that the registry sets.
fn complete(policy: Policy, update_time: SystemTime) -> Policy {
    let plain = Policy {
        retry: policy.retry.filter(|retry| *retry != RetryPolicy::default()),
        ejection: policy.ejection.filter(|ejection| *ejection != EjectionPolicy::default()),
        zones: policy.zones.filter(|zones| *zones != ZonePolicy::default()),
        etag: String::new(),
        update_time: None,
        ..policy
    };
    let none = none(&plain.service);
    match etag(&plain) {
        etag if etag == none.etag => none,
        etag => Policy { etag, update_time: Some(update_time.into()), ..plain },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        limits::MAX_POLICIES,
        policies::{PolicyStore, Shared, collection::Collection},
    };

    #[tokio::test]
    async fn there_is_room_for_a_policy_of_each_service_and_for_no_more() {
        let timeout = |service: String, seconds| Policy {
            service,
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Policy::default()
        };
        let now = SystemTime::now();
        let full = (0..MAX_POLICIES).map(|n| complete(timeout(n.to_string(), 1), now));
        let store = PolicyStore(Arc::new(Shared { policies: Collection::of(full), ..Shared::default() }));
        let turn = store.turn().await;

        assert_eq!(turn.set_policy(timeout("order".into(), 1), now), Err(PolicyError::TooMany(Kind::Policy)));

        assert!(turn.set_policy(timeout("0".into(), 2), now).expect("it takes no room").1);
        turn.set_policy(Policy { service: "0".into(), ..Policy::default() }, now).expect("it makes room");
        assert!(turn.set_policy(timeout("order".into(), 1), now).is_ok());
        assert_eq!(store.policies().len(), MAX_POLICIES);
    }
}
