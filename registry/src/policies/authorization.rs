//! Authorization policies: who may call the methods of a service.
//!
//! A policy that was deleted is kept, without rules and with the time of that, because watchers keep rules of which a registry
//! says nothing: it may have lost them. Where registries differ, the latest word on a service wins, so that its time grows with
//! every word, also with one that says the same again.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use meshwork::{
    authorization,
    contract::meshwork::registry::v1::{AuthorizationPolicy, ListAuthorizationPoliciesResponse},
    rpc::Violations,
    service_name::check_service_name,
};
use prost_types::Timestamp;

use super::{Kept, Kind, PolicyError, Turn, check_etag, etag};

/// Between two words on one service at least: what the times of all languages can tell apart.
const TICK: Duration = Duration::from_millis(1);
/// The year 9000, in seconds since 1970. No time of a file is later: those after the year 9999 have no JSON, and a file that says one
/// leaves no room for later words.
const MAX_SECONDS: i64 = 221_845_392_000;

impl Kept for AuthorizationPolicy {
    const KIND: Kind = Kind::Authorization;
    type List = ListAuthorizationPoliciesResponse;

    fn name(&self) -> &str {
        &self.service
    }

    fn is_set(&self) -> bool {
        self.update_time.is_some()
    }

    fn read_back(self, now: SystemTime) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        if self.update_time.is_some_and(|time| time.seconds >= MAX_SECONDS) {
            violations.add("policy.update_time", "must be before the year 9000");
            return Err(violations);
        }
        let update_time = self.update_time;
        if !says_something(&self) {
            violations.check("policy.service", check_service_name(&self.service));
            let deleted = AuthorizationPolicy { update_time, ..no_rules(&self.service) };
            return if violations.is_empty() { Ok(deleted) } else { Err(violations) };
        }
        check_authorization(&self)?;
        Ok(complete(self, update_time.unwrap_or_else(|| now.into())))
    }

    fn list(policies: Vec<Self>) -> ListAuthorizationPoliciesResponse {
        ListAuthorizationPoliciesResponse { policies, next_page_token: String::new() }
    }

    fn entries(list: ListAuthorizationPoliciesResponse) -> Vec<Self> {
        list.policies
    }
}

/// What has come of a word on a service's rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AuthorizationChange {
    /// The policy as it is now.
    pub(crate) policy: AuthorizationPolicy,
    /// The service whose deletion is forgotten, to make room.
    pub(crate) forgotten: Option<String>,
}

impl Turn {
    /// Sets a policy that was checked, or deletes the one that is there if `asked` has no rules. Waits for the disk.
    pub(crate) fn put_authorization(
        &self,
        asked: AuthorizationPolicy,
        now: SystemTime,
    ) -> Result<AuthorizationChange, PolicyError> {
        let kept = &self.store.0.authorizations;
        let mut policies = kept.latest().clone();
        let before = policies.remove(&asked.service).unwrap_or_else(|| no_rules(&asked.service));
        let policy = replace(&before, asked, now)?;
        let forgotten = make_room(&mut policies)?;
        policies.insert(policy.service.clone(), policy.clone());
        kept.replace(policies)?;
        Ok(AuthorizationChange { policy, forgotten })
    }
}

/// The policy of a service that none was set for; with a time, of one whose rules were deleted.
pub(crate) fn no_rules(service: &str) -> AuthorizationPolicy {
    let policy = AuthorizationPolicy { service: service.to_owned(), ..AuthorizationPolicy::default() };
    AuthorizationPolicy { etag: etag(&policy), ..policy }
}

/// Whether it is in effect; otherwise it was never set, or deleted.
pub(crate) fn has_rules(policy: &AuthorizationPolicy) -> bool {
    !policy.allow.is_empty()
}

/// Whether a policy has a service, and rules that calls can match.
pub(crate) fn check_authorization(policy: &AuthorizationPolicy) -> Result<(), Violations> {
    let mut violations = authorization::check(policy).err().unwrap_or_default();
    violations.check("policy.service", check_service_name(&policy.service));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// What takes the place of `before`. What says the same is no conflict, so that a call may be repeated.
fn replace(
    before: &AuthorizationPolicy,
    asked: AuthorizationPolicy,
    now: SystemTime,
) -> Result<AuthorizationPolicy, PolicyError> {
    let replaces = asked.etag.clone();
    let after = complete(asked, time_after(before.update_time, now));
    if after.etag != before.etag {
        check_etag(Kind::Authorization, &replaces, &before.etag)?;
    }
    Ok(after)
}

/// Now, or as little later as it takes to be after `before`: the clock may have been set back.
fn time_after(before: Option<Timestamp>, now: SystemTime) -> Timestamp {
    let before = before.and_then(|before| SystemTime::try_from(before).ok());
    before.map_or(now, |before| now.max(before + TICK)).into()
}

/// Forgets the oldest deletion if there is no room for another policy. It returns that service.
fn make_room(policies: &mut BTreeMap<String, AuthorizationPolicy>) -> Result<Option<String>, PolicyError> {
    if policies.len() < Kind::Authorization.limit() {
        return Ok(None);
    }
    let deleted = policies.values().filter(|policy| !has_rules(policy));
    let oldest = deleted.min_by_key(|policy| policy.update_time.map(|time| (time.seconds, time.nanos)));
    let oldest = oldest.ok_or(PolicyError::TooMany(Kind::Authorization))?.service.clone();
    policies.remove(&oldest);
    Ok(Some(oldest))
}

/// Whether it is more than the name of a service.
fn says_something(policy: &AuthorizationPolicy) -> bool {
    !(policy.allow.is_empty() && policy.deny.is_empty() && policy.subject_callers.is_empty())
}

/// A policy with the fields that the registry sets.
fn complete(policy: AuthorizationPolicy, update_time: Timestamp) -> AuthorizationPolicy {
    let plain = AuthorizationPolicy { etag: String::new(), update_time: None, ..policy };
    AuthorizationPolicy { etag: etag(&plain), update_time: Some(update_time), ..plain }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use meshwork::contract::meshwork::registry::v1::AuthorizationRule;

    use super::*;
    use crate::{
        limits::MAX_AUTHORIZATIONS,
        policies::{PolicyStore, Shared, collection::Collection},
    };

    fn rules(service: &str, caller: &str) -> AuthorizationPolicy {
        let rule = AuthorizationRule { callers: vec![caller.into()], methods: vec!["a.B/C".into()] };
        AuthorizationPolicy { service: service.into(), allow: vec![rule], ..AuthorizationPolicy::default() }
    }

    fn ms(policy: &AuthorizationPolicy) -> i64 {
        let time = policy.update_time.expect("set");
        time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
    }

    #[tokio::test]
    async fn each_word_on_a_service_is_later_than_the_one_before_whatever_the_clock_says() {
        let store = PolicyStore::default();
        let turn = store.turn().await;
        let put = |policy, at| {
            let now = UNIX_EPOCH + Duration::from_secs(at);
            ms(&turn.put_authorization(policy, now).expect("there is room").policy)
        };
        assert_eq!(put(rules("order", "*"), 100), 100_000);
        assert_eq!(put(rules("order", "service/a"), 50), 100_001);
        assert_eq!(put(rules("order", "service/a"), 100), 100_002, "the same word again");
        let deletion = || AuthorizationPolicy { etag: String::new(), ..no_rules("order") };
        assert_eq!(put(deletion(), 50), 100_003);
        assert_eq!(put(deletion(), 200), 200_000);
    }

    #[tokio::test]
    async fn a_full_registry_forgets_the_oldest_deletion_and_no_rules() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let at = |policy, seconds| complete(policy, Timestamp { seconds, nanos: 0 });
        let full = (2..MAX_AUTHORIZATIONS).map(|n| at(rules(&n.to_string(), "*"), 1));
        let deleted = [at(no_rules("late"), 9), at(no_rules("early"), 2)];
        let authorizations = Collection::of(full.chain(deleted));
        let store = PolicyStore(Arc::new(Shared { authorizations, ..Shared::default() }));
        let turn = store.turn().await;
        let forgotten = |policy| turn.put_authorization(policy, now).map(|change| change.forgotten);

        assert_eq!(forgotten(rules("2", "service/a")), Ok(None), "it takes no room");
        assert_eq!(forgotten(rules("order", "*")), Ok(Some("early".into())));
        assert_eq!(forgotten(no_rules("customer")), Ok(Some("late".into())));
        assert_eq!(forgotten(rules("customer", "*")), Ok(None), "it had its room");
        assert_eq!(forgotten(rules("query", "*")), Err(PolicyError::TooMany(Kind::Authorization)));
        assert_eq!(store.authorizations().len(), MAX_AUTHORIZATIONS);
    }
}
