//! What is known of a service's rules, and that what is known is only replaced by what was set later.

use std::{cmp::Ordering, sync::Arc};

use prost_types::Timestamp;

use super::rules::Rules;
use crate::{contract::meshwork::registry::v1::AuthorizationPolicy, rpc::Violations};

/// What is known of the rules of a service. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing: neither a registry nor the cache of an earlier run has said anything.
    #[default]
    Unknown,
    /// There are none.
    None {
        /// When they were deleted; unset: there never were any.
        deleted: Option<Timestamp>,
    },
    /// These.
    Rules(Arc<Rules>),
}

impl Knowledge {
    /// That there never were any.
    pub const NEVER_SET: Self = Self::None { deleted: None };

    /// What a policy says: of one without rules that there are none.
    ///
    /// # Errors
    /// What [`check`](super::check()) finds.
    pub fn new(policy: &AuthorizationPolicy) -> Result<Self, Violations> {
        if policy.allow.is_empty() && policy.deny.is_empty() && policy.subject_callers.is_empty() {
            return Ok(Self::None { deleted: policy.update_time });
        }
        Rules::new(policy).map(|rules| Self::Rules(Arc::new(rules)))
    }

    /// The policy that says it again; `None`: nothing is known.
    pub fn message(&self, service: &str) -> Option<AuthorizationPolicy> {
        match self {
            Self::Unknown => None,
            Self::None { deleted } => Some(AuthorizationPolicy {
                service: service.to_owned(),
                update_time: *deleted,
                ..AuthorizationPolicy::default()
            }),
            Self::Rules(rules) => Some(rules.message().clone()),
        }
    }

    /// The rules, if there are any.
    pub fn rules(&self) -> Option<&Arc<Rules>> {
        match self {
            Self::Rules(rules) => Some(rules),
            Self::Unknown | Self::None { .. } => None,
        }
    }

    /// Takes in what was heard, unless what is known was set later. Returns whether it was taken in.
    pub(crate) fn learn(&mut self, heard: &Self) -> bool {
        let is_newer = self.order(heard).is_le();
        if is_newer && self != heard {
            self.clone_from(heard);
        }
        is_newer
    }

    /// Which of two counts: the greater. Nothing removes rules but a deletion that came after them.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let rank = |known: &Self| match known {
            Self::Unknown => (0, None, false),
            Self::None { deleted } => (1, deleted.map(parts), false),
            Self::Rules(rules) => (1, rules.update_time().map(parts), true),
        };
        rank(self).cmp(&rank(other))
    }
}

fn parts(Timestamp { seconds, nanos }: Timestamp) -> (i64, i32) {
    (seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::check::tests::{policy, rule};

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn rules(etag: &str, seconds: Option<i64>) -> Knowledge {
        let policy = policy(&[rule(&["service/query"], &["a.C/Get"])]);
        let policy = AuthorizationPolicy { etag: etag.into(), update_time: seconds.map(at), ..policy };
        Knowledge::new(&policy).expect("good rules")
    }

    fn deleted(seconds: i64) -> Knowledge {
        Knowledge::None { deleted: Some(at(seconds)) }
    }

    #[test]
    fn what_was_set_last_counts_and_nothing_but_a_later_deletion_removes_rules() {
        let ascending = [
            Knowledge::Unknown,
            Knowledge::NEVER_SET,
            rules("undated", None),
            rules("1", Some(1)),
            deleted(2),
            rules("2", Some(2)),
            deleted(3),
        ];
        for (older, first) in ascending.iter().enumerate() {
            for (newer, second) in ascending.iter().enumerate() {
                let mut known = first.clone();
                assert_eq!(known.learn(second), older <= newer);
                assert_eq!(known, ascending[older.max(newer)]);
            }
        }
        let mut known = rules("1", Some(1));
        assert!(known.learn(&rules("other", Some(1))), "the registry's latest word");
        assert_eq!(known, rules("other", Some(1)));
    }

    #[test]
    fn what_is_known_is_read_again_from_its_policy() {
        for known in [Knowledge::NEVER_SET, deleted(7), rules("1", Some(1))] {
            let policy = known.message("order").expect("known");
            assert_eq!((policy.service.as_str(), Knowledge::new(&policy).ok()), ("order", Some(known)));
        }
        assert_eq!(Knowledge::Unknown.message("order"), None);
        let bad = AuthorizationPolicy { subject_callers: vec!["service/a".into()], ..AuthorizationPolicy::default() };
        assert!(Knowledge::new(&bad).is_err(), "it allows nothing and is no deletion");
    }
}
