//! A policy that was checked, arranged for the decision about a call: up to four look-ups by name, and no allocation.

use std::collections::{HashMap, HashSet};

use prost_types::Timestamp;

use super::{
    callers::Callers,
    check,
    method::{Pattern, of_path},
};
use crate::{
    contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
    identity::PeerIdentity,
    rpc::Violations,
};

/// The rules of one service.
#[derive(Debug)]
pub struct Rules {
    message: AuthorizationPolicy,
    allow: RuleList,
    deny: RuleList,
    subject_callers: Callers,
}

/// What the rules say about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// An `allow` rule matches, and no `deny` rule.
    Allowed,
    /// A `deny` rule matches.
    Denied {
        /// Its index in the policy.
        by: usize,
    },
    /// No rule matches.
    NotAllowed,
}

impl Rules {
    /// The rules of a policy.
    ///
    /// # Errors
    /// What [`check`](super::check()) finds.
    pub fn new(policy: &AuthorizationPolicy) -> Result<Self, Violations> {
        check::check(policy)?;
        let subject_callers = Callers::parse_named(&policy.subject_callers).expect(CHECKED);
        Ok(Self {
            message: policy.clone(),
            allow: RuleList::new(&policy.allow),
            deny: RuleList::new(&policy.deny),
            subject_callers,
        })
    }

    /// What they say about a call of the method at `path`, as in `/shop.order.v1.OrderService/GetOrder`.
    pub fn decide(&self, caller: &PeerIdentity, path: &str) -> Decision {
        match self.deny.first_match(caller, path) {
            Some(by) => Decision::Denied { by },
            None if self.allowed_by(caller, path).is_some() => Decision::Allowed,
            None => Decision::NotAllowed,
        }
    }

    /// The first `allow` rule that matches a call, by its index in the policy. A `deny` rule may match it too.
    pub fn allowed_by(&self, caller: &PeerIdentity, path: &str) -> Option<usize> {
        self.allow.first_match(caller, path)
    }

    /// Whether an `allow` rule names the gRPC service of the method at `path`, or a method of it.
    pub fn name_service_of(&self, path: &str) -> bool {
        self.allow.named.contains(of_path(path).0)
    }

    /// Whose `meshwork-subject` is believed.
    pub fn subject_callers(&self) -> &Callers {
        &self.subject_callers
    }

    /// Their version.
    pub fn etag(&self) -> &str {
        &self.message.etag
    }

    /// When they were set.
    pub fn update_time(&self) -> Option<Timestamp> {
        self.message.update_time
    }

    /// The policy that they were made of.
    pub fn message(&self) -> &AuthorizationPolicy {
        &self.message
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for Rules {}

const CHECKED: &str = "the policy was checked";

/// Rules by what they match. Indexes are those of the policy's list, ascending.
#[derive(Debug, Default)]
struct RuleList {
    callers: Vec<Callers>,
    /// By full method name.
    methods: HashMap<Box<str>, Vec<usize>>,
    /// Those for all methods of a gRPC service, by its name.
    services: HashMap<Box<str>, Vec<usize>>,
    /// The gRPC services that any of them is about.
    named: HashSet<Box<str>>,
}

impl RuleList {
    fn new(rules: &[AuthorizationRule]) -> Self {
        let mut list = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            list.callers.push(Callers::parse(&rule.callers).expect(CHECKED));
            for method in &rule.methods {
                let pattern = Pattern::parse(method).expect(CHECKED);
                list.named.insert(pattern.service().into());
                let matched = match pattern {
                    Pattern::One(method) => list.methods.entry(method.into()),
                    Pattern::All(service) => list.services.entry(service.into()),
                };
                matched.or_default().push(index);
            }
        }
        list
    }

    /// The first rule that matches a call.
    fn first_match(&self, caller: &PeerIdentity, path: &str) -> Option<usize> {
        let (service, method) = of_path(path);
        let first = |rules: Option<&Vec<usize>>| {
            rules.into_iter().flatten().copied().find(|rule| self.callers[*rule].contains(caller))
        };
        let (one, all) = (first(self.methods.get(method)), first(self.services.get(service)));
        one.into_iter().chain(all).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::check::tests::{policy, rule};

    fn peer(path: &str) -> PeerIdentity {
        PeerIdentity::verified(format!("spiffe://t/{path}").parse().expect("an id"))
    }

    #[test]
    fn a_deny_rule_goes_before_all_allow_rules_and_the_rest_is_not_allowed() {
        let rules = Rules::new(&AuthorizationPolicy {
            deny: vec![
                rule(&["operator/eve"], &["a.C/Get"]),
                rule(&["service/query"], &["a.C/Put", "a.C/Cut"]),
                rule(&["operator/eve"], &["a.C/*"]),
            ],
            ..policy(&[
                rule(&["service/*", "operator/*"], &["a.C/Get"]),
                rule(&["service/query"], &["a.C/*", "a.D/Go"]),
            ])
        })
        .expect("good rules");
        for (caller, path, expected) in [
            ("service/order", "/a.C/Get", Decision::Allowed),
            ("service/order", "/a.C/Put", Decision::NotAllowed),
            ("service/query", "/a.C/Any", Decision::Allowed),
            ("service/query", "/a.C/Put", Decision::Denied { by: 1 }),
            ("operator/ada", "/a.C/Get", Decision::Allowed),
            ("operator/eve", "/a.C/Get", Decision::Denied { by: 0 }),
            ("operator/eve", "/a.C/Cut", Decision::Denied { by: 2 }),
            ("service/query", "/a.D/Go", Decision::Allowed),
            ("service/query", "/a.D/Gone", Decision::NotAllowed),
            ("service/query", "/a.CC/Get", Decision::NotAllowed),
            ("service/query", "/a/C/Get", Decision::NotAllowed),
            ("service/query", "/", Decision::NotAllowed),
        ] {
            assert_eq!(rules.decide(&peer(caller), path), expected, "{caller} {path}");
        }
        assert_eq!(rules.decide(&PeerIdentity::ANONYMOUS, "/a.C/Get"), Decision::NotAllowed);
        assert_eq!(rules.allowed_by(&peer("service/query"), "/a.C/Get"), Some(0), "the first of two");
        assert_eq!(rules.allowed_by(&peer("service/query"), "/a.D/Go"), Some(1));
        assert_eq!(rules.allowed_by(&peer("service/query"), "/a.D/Gone"), None);
        assert!(rules.name_service_of("/a.D/Else") && rules.name_service_of("/a.C/Get"));
        assert!(!rules.name_service_of("/a/D") && !rules.name_service_of("/a.B/Get"));
    }
}
