//! A policy of the contract, checked against the limits that it states there; a rule that no call can match is refused.
//!
//! Of each list only the first problem is named: the details of an error travel in HTTP/2 trailers, which are limited in size.

use std::collections::{HashMap, HashSet};

use prost::Message as _;

use super::{
    callers::Callers,
    limits::{ALLOW_RULES, CALLERS, MAX_DENY_RULES, MAX_POLICY_BYTES, MAX_SUBJECT_CALLERS, METHODS},
    method::Pattern,
};
use crate::{
    contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
    rpc::Violations,
};

/// A field below `policy`, and what is wrong with it.
type Problem = (String, String);

/// Whether this policy can be in effect. Its `service`, `etag` and `update_time` are not looked at.
///
/// # Errors
/// The fields that are wrong, as fields of a request with a `policy`.
pub fn check(policy: &AuthorizationPolicy) -> Result<(), Violations> {
    let mut violations = Violations::default();
    let size = policy.encoded_len();
    if size > MAX_POLICY_BYTES {
        violations.add("policy", format!("has {size} bytes, which is more than the limit of {MAX_POLICY_BYTES} bytes"));
        return Err(violations);
    }
    let problems =
        [check_allow(&policy.allow), check_deny(&policy.deny), check_subject_callers(&policy.subject_callers)];
    note(&mut violations, problems.into_iter().filter_map(Result::err));
    if violations.is_empty() {
        // It compares rules that are good.
        note(&mut violations, check_effect(policy).err());
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

fn note(violations: &mut Violations, problems: impl IntoIterator<Item = Problem>) {
    for (field, problem) in problems {
        violations.add(&format!("policy.{field}"), problem);
    }
}

fn check_allow(rules: &[AuthorizationRule]) -> Result<(), Problem> {
    if !ALLOW_RULES.contains(&rules.len()) {
        return Err(("allow".to_owned(), "must have 1-256 rules; delete the policy to have none".to_owned()));
    }
    check_rules("allow", rules)
}

fn check_deny(rules: &[AuthorizationRule]) -> Result<(), Problem> {
    if rules.len() > MAX_DENY_RULES {
        return Err(("deny".to_owned(), "must have up to 256 rules".to_owned()));
    }
    check_rules("deny", rules)
}

fn check_rules(list: &str, rules: &[AuthorizationRule]) -> Result<(), Problem> {
    let mut first: HashMap<[Vec<&str>; 2], usize> = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{list}[{index}]");
        check_rule(rule).map_err(|(field, problem)| (format!("{at}.{field}"), problem))?;
        if let Some(same) = first.insert([sorted(&rule.callers), sorted(&rule.methods)], index) {
            return Err((at, format!("is the same rule as {list}[{same}]")));
        }
    }
    Ok(())
}

fn check_rule(rule: &AuthorizationRule) -> Result<(), Problem> {
    if !CALLERS.contains(&rule.callers.len()) {
        return Err(("callers".to_owned(), "must have 1-64 callers".to_owned()));
    }
    if !METHODS.contains(&rule.methods.len()) {
        return Err(("methods".to_owned(), "must have 1-64 methods".to_owned()));
    }
    Callers::parse(&rule.callers).map_err(|(index, problem)| (format!("callers[{index}]"), problem))?;
    for (index, method) in rule.methods.iter().enumerate() {
        Pattern::parse(method).map_err(|problem| (format!("methods[{index}]"), problem))?;
    }
    Ok(())
}

fn check_subject_callers(callers: &[String]) -> Result<(), Problem> {
    if callers.len() > MAX_SUBJECT_CALLERS {
        return Err(("subject_callers".to_owned(), "must have up to 64 callers".to_owned()));
    }
    let parsed = Callers::parse_named(callers);
    parsed.map(drop).map_err(|(index, problem)| (format!("subject_callers[{index}]"), problem))
}

/// Whether each allow rule allows something.
fn check_effect(policy: &AuthorizationPolicy) -> Result<(), Problem> {
    let deny: Vec<Covering<'_>> = policy.deny.iter().map(Covering::new).collect();
    match policy.allow.iter().position(|rule| is_covered(rule, &deny)) {
        Some(index) => Err((format!("allow[{index}]"), "allows nothing: deny rules match all of its calls".to_owned())),
        None => Ok(()),
    }
}

/// A deny rule, to be asked what it covers.
struct Covering<'a> {
    callers: Callers,
    methods: HashSet<Pattern<'a>>,
}

impl<'a> Covering<'a> {
    fn new(rule: &'a AuthorizationRule) -> Self {
        let callers = Callers::parse(&rule.callers).unwrap_or_default();
        Self { callers, methods: rule.methods.iter().filter_map(|method| Pattern::parse(method).ok()).collect() }
    }

    fn covers_method(&self, text: &str) -> bool {
        Pattern::parse(text).is_ok_and(|method| {
            self.methods.contains(&method) || self.methods.contains(&Pattern::All(method.service()))
        })
    }
}

/// Whether each pair of a caller and a method of a rule is covered by one of these.
fn is_covered(rule: &AuthorizationRule, deny: &[Covering<'_>]) -> bool {
    let all = u64::MAX >> (u64::BITS as usize - rule.methods.len());
    // For each caller the methods, a bit each, that are denied to it.
    let mut denied = vec![0; rule.callers.len()];
    for deny in deny {
        let covered = rule.methods.iter().enumerate().filter(|(_, method)| deny.covers_method(method));
        let methods = covered.fold(0, |bits, (index, _)| bits | 1_u64 << index);
        if methods != 0 {
            let callers = rule.callers.iter().zip(&mut denied).filter(|(caller, _)| deny.callers.covers(caller));
            callers.for_each(|(_, denied)| *denied |= methods);
        }
    }
    denied.iter().all(|denied| *denied == all)
}

fn sorted(texts: &[String]) -> Vec<&str> {
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::authorization) fn rule(callers: &[&str], methods: &[&str]) -> AuthorizationRule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        AuthorizationRule { callers: owned(callers), methods: owned(methods) }
    }

    pub(in crate::authorization) fn policy(allow: &[AuthorizationRule]) -> AuthorizationPolicy {
        AuthorizationPolicy { service: "order".into(), allow: allow.to_vec(), ..AuthorizationPolicy::default() }
    }

    fn good() -> AuthorizationPolicy {
        policy(&[rule(&["service/query"], &["a.C/Get"])])
    }

    fn complaint(policy: &AuthorizationPolicy) -> String {
        check(policy).expect_err("it is wrong").to_string()
    }

    fn numbered(count: usize, text: impl Fn(usize) -> String) -> Vec<String> {
        (0..count).map(text).collect()
    }

    #[test]
    fn each_list_that_is_wrong_is_named_with_its_first_problem() {
        assert!(check(&good()).is_ok());
        let policy = AuthorizationPolicy {
            allow: vec![rule(&["service/query"], &["a.C/Get"]), rule(&["query"], &["/a.C/Get"]), rule(&[], &[])],
            deny: vec![rule(&["*", "operator/*"], &["a.C/Get", "*"])],
            subject_callers: vec!["service/gateway".into(), "anonymous".into()],
            ..good()
        };
        let expected = [
            "policy.allow[1].callers[0]: \"query\" has no kind: write \"service/query\" or \"operator/query\"",
            "policy.deny[0].methods[1]: \"*\": a wildcard stands only for all methods of one gRPC service, as in \
             \"shop.order.v1.OrderService/*\"",
            "policy.subject_callers[1]: \"anonymous\" must be one service or operator",
        ];
        assert_eq!(complaint(&policy), expected.join("; "));
    }

    #[test]
    fn every_list_is_bounded_and_so_is_the_whole() {
        let callers = |count| numbered(count, |n| format!("service/s{n}"));
        let methods = |count| numbered(count, |n| format!("a.C/M{n}"));
        let rules = |count| (0..count).map(|n| rule(&["*"], &[&format!("a.C/M{n}")])).collect::<Vec<_>>();
        let of = |callers, methods| policy(&[AuthorizationRule { callers, methods }]);
        let deny = |deny| AuthorizationPolicy { deny, ..good() };
        let subject_callers = |subject_callers| AuthorizationPolicy { subject_callers, ..good() };
        for (policy, problem) in [
            (of(callers(64), methods(64)), None),
            (of(callers(65), methods(1)), Some("allow[0].callers: must have 1-64 callers")),
            (of(vec![], methods(1)), Some("allow[0].callers: must have 1-64 callers")),
            (of(callers(1), methods(65)), Some("allow[0].methods: must have 1-64 methods")),
            (of(callers(1), vec![]), Some("allow[0].methods: must have 1-64 methods")),
            (policy(&rules(256)), None),
            (policy(&rules(257)), Some("allow: must have 1-256 rules; delete the policy to have none")),
            (policy(&[]), Some("allow: must have 1-256 rules; delete the policy to have none")),
            (deny(rules(256)), None),
            (deny(rules(257)), Some("deny: must have up to 256 rules")),
            (subject_callers(callers(64)), None),
            (subject_callers(callers(65)), Some("subject_callers: must have up to 64 callers")),
        ] {
            let found = check(&policy).err().map(|violations| violations.to_string());
            assert_eq!(found, problem.map(|problem| format!("policy.{problem}")));
        }
        let long = |n: usize| format!("operator/{n}{}", "x".repeat(1100));
        let large = policy(&[AuthorizationRule { callers: numbered(60, long), methods: methods(1) }]);
        assert!(complaint(&large).starts_with("policy: has "), "{}", complaint(&large));
    }

    #[test]
    fn a_rule_that_is_there_twice_or_allows_nothing_is_refused() {
        let twice = policy(&[
            rule(&["service/a", "service/b"], &["a.C/*"]),
            rule(&["service/b"], &["a.C/*"]),
            rule(&["service/b", "service/a"], &["a.C/*"]),
        ]);
        assert_eq!(complaint(&twice), "policy.allow[2]: is the same rule as allow[0]");

        let with = |allow: AuthorizationRule, deny: &[AuthorizationRule]| AuthorizationPolicy {
            deny: deny.to_vec(),
            ..policy(&[rule(&["operator/ada"], &["a.Z/Go"]), allow])
        };
        let two = || rule(&["service/a", "service/b"], &["a.C/Get", "a.D/*"]);
        let many = || rule(&["*"], &["a.C/Get"]);
        for (allow, deny, allows) in [
            (two(), vec![], true),
            (two(), vec![rule(&["*"], &["a.C/*", "a.D/*"])], false),
            (two(), vec![rule(&["service/*"], &["a.C/Get", "a.D/*"])], false),
            (two(), vec![rule(&["service/*"], &["a.C/Get", "a.D/Get"])], true),
            (two(), vec![rule(&["operator/*", "anonymous"], &["a.C/*", "a.D/*"])], true),
            (two(), vec![rule(&["service/a"], &["a.C/*", "a.D/*"])], true),
            (
                two(),
                vec![rule(&["service/a"], &["a.C/*", "a.D/*"]), rule(&["service/b"], &["a.D/*", "a.C/Get"])],
                false,
            ),
            (two(), vec![rule(&["service/*"], &["a.C/*"]), rule(&["service/*"], &["a.D/*"])], false),
            (many(), vec![rule(&["service/*", "operator/*", "anonymous"], &["a.C/*"])], true),
            (many(), vec![rule(&["*"], &["a.C/*"])], false),
        ] {
            let found = check(&with(allow.clone(), &deny)).err().map(|violations| violations.to_string());
            let refused = "policy.allow[1]: allows nothing: deny rules match all of its calls";
            assert_eq!(found.as_deref(), (!allows).then_some(refused), "{allow:?} {deny:?}");
        }
        let full = rule(&["*"], &["a.C/Get"]);
        assert!(is_covered(&full, &[Covering::new(&full)]) && !is_covered(&full, &[]));
    }
}
