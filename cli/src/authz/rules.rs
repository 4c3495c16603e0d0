//! The rules that a command line gives, one by one or in a file, checked as the registry checks them.

use std::path::Path;

use meshwork::{authorization, contract::meshwork::registry::v1::AuthorizationPolicy};

use super::rule::Rule;
use crate::{args::AuthzRules, error::Error, message_file};

/// The policy of a service that these rules are; its etag is that of the file, if there is one.
pub(super) fn policy(rules: &AuthzRules, service: &str) -> Result<AuthorizationPolicy, Error> {
    if let Some(file) = &rules.file {
        return from_file(file, service);
    }
    let policy = AuthorizationPolicy {
        service: service.to_owned(),
        allow: rules.allow.iter().map(Into::into).collect(),
        deny: rules.deny.iter().map(Into::into).collect(),
        subject_callers: rules.subject_caller.clone(),
        ..AuthorizationPolicy::default()
    };
    authorization::check(&policy).map_err(|violations| {
        let (field, problem) = violations.iter().next().unwrap_or(("policy", "cannot be used"));
        at_flag(rules, service, field, problem)
    })?;
    Ok(policy)
}

fn from_file(file: &Path, service: &str) -> Result<AuthorizationPolicy, Error> {
    let policy: AuthorizationPolicy = message_file::read(file, "an AuthorizationPolicy")?;
    message_file::check_service(file, &policy.service, service)?;
    authorization::check(&policy).map_err(|violations| message_file::unusable(file, violations))?;
    Ok(AuthorizationPolicy { service: service.to_owned(), update_time: None, ..policy })
}

/// What is wrong with a field of the policy, said of the flag that it comes from.
fn at_flag(rules: &AuthzRules, service: &str, field: &str, problem: &str) -> Error {
    let field = field.strip_prefix("policy.").unwrap_or(field);
    let rule = |rules: &[Rule], index: usize| rules.get(index).map(|rule| rule.text.clone());
    let typed = entry(field).and_then(|(list, index)| match list {
        "allow" => Some(("--allow", rule(&rules.allow, index)?)),
        "deny" => Some(("--deny", rule(&rules.deny, index)?)),
        "subject_callers" => Some(("--subject-caller", rules.subject_caller.get(index)?.clone())),
        _ => None,
    });
    match typed {
        Some((flag, value)) => Error::flag(flag, value, problem),
        None => Error::flag("authz set", service, format_args!("{field}: {problem}")),
    }
}

/// The list and the index at the beginning of a field such as `allow[1].callers[0]`.
fn entry(field: &str) -> Option<(&str, usize)> {
    let (list, rest) = field.split_once('[')?;
    let (index, _) = rest.split_once(']')?;
    Some((list, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::authz::InvalidRule;

    fn rules(allow: &[&str], deny: &[&str], subject_caller: &[&str]) -> AuthzRules {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("CALLERS=METHODS")).collect();
        let subject_caller = subject_caller.iter().map(|text| (*text).to_owned()).collect();
        AuthzRules { allow: parsed(allow), deny: parsed(deny), subject_caller, file: None }
    }

    #[test]
    fn a_rule_has_callers_and_methods_and_an_equals_sign_between_them() {
        let rule: Rule = "service/a,operator/*=a.C/Get,a.D/*".parse().expect("a rule");
        assert_eq!(
            (rule.callers.join(" "), rule.methods.join(" ")),
            ("service/a operator/*".into(), "a.C/Get a.D/*".into())
        );
        for bad in ["", "service/a", "=a.C/Get", "service/a=", "a.C/Get"] {
            assert_eq!(bad.parse::<Rule>(), Err(InvalidRule), "{bad}");
        }
    }

    #[test]
    fn good_rules_become_the_policy_in_their_order() {
        let policy = policy(
            &rules(&["service/a=a.C/Get", "*=a.C/Put"], &["anonymous=a.C/*"], &["service/web", "operator/ada"]),
            "order",
        );
        let policy = policy.expect("good");
        assert_eq!((policy.service.as_str(), policy.etag.as_str()), ("order", ""));
        assert_eq!(
            (policy.allow[0].callers.join(""), policy.allow[1].methods.join("")),
            ("service/a".into(), "a.C/Put".into())
        );
        assert_eq!((policy.deny.len(), policy.subject_callers.len()), (1, 2));
    }

    #[test]
    fn a_bad_rule_is_named_by_its_flag_and_its_own_text() {
        let good = "service/a=a.C/Get";
        for (rules, says) in [
            (rules(&[good, "a=a.C/Get"], &[], &[]), "--allow a=a.C/Get: \"a\" has no kind: write \"service/a\""),
            (rules(&["service/a,=a.C/Get"], &[], &[]), "--allow service/a,=a.C/Get: \"\" is not a caller"),
            (rules(&["service/a=a.C"], &[], &[]), "--allow service/a=a.C: \"a.C\" has no method: write \"a.C/*\""),
            (rules(&["service/a=*"], &[], &[]), "--allow service/a=*: \"*\": a wildcard stands only for all methods"),
            (rules(&["service/a=grpc.health.v1.Health/*"], &[], &[]), "is always open to everyone"),
            (rules(&[good], &[good], &[]), "--allow service/a=a.C/Get: allows nothing: deny rules match all"),
            (rules(&[good], &["service/o*=a.C/Get"], &[]), "--deny service/o*=a.C/Get: \"service/o*\": a wildcard"),
            (
                rules(&["service/a=a.D/*", good, good], &[], &[]),
                "--allow service/a=a.C/Get: is the same rule as allow[1]",
            ),
            (rules(&[good], &[], &["service/a", "*"]), "--subject-caller *: \"*\" must be one service or operator"),
            (rules(&[], &[], &[]), "authz set order: allow: must have 1-256 rules"),
        ] {
            let error = policy(&rules, "order").expect_err(says);
            assert!(matches!(error, Error::Flag { .. }) && error.to_string().contains(says), "{error}");
        }
        let many = vec!["service/a"; 65].join(",") + "=a.C/Get";
        let error = policy(&rules(&[&many], &[], &[]), "order").expect_err("too many").to_string();
        assert!(error.starts_with("--allow service/a,") && error.ends_with(": must have 1-64 callers"), "{error}");
    }

    #[test]
    fn a_file_is_read_for_its_service_with_its_etag_and_a_mistake_in_it_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rules.json");
        let read = |text: &str| {
            fs::write(&file, text).expect("written");
            from_file(&file, "order").map_err(|error| error.to_string())
        };
        let good = r#"{"allow": [{"callers": ["service/a"], "methods": ["a.C/Get"]}], "etag": "7",
            "updateTime": "2026-11-29T02:00:00Z"}"#;
        let policy = read(good).expect("good");
        assert_eq!((policy.service.as_str(), policy.etag.as_str(), policy.update_time), ("order", "7", None));
        for (text, says) in [
            (r#"{"alow": []}"#, "must be an AuthorizationPolicy as protobuf JSON"),
            (r#"{"allow": []}"#, "policy.allow: must have 1-256 rules; delete the policy to have none"),
            (
                r#"{"allow": [{"callers": ["a"], "methods": ["a.C/Get"]}]}"#,
                "policy.allow[0].callers[0]: \"a\" has no kind",
            ),
            (r#"{"service": "customer"}"#, r#"not of "order": remove its field "service", or name customer"#),
            ("\n", "is empty"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with("--file ") && error.contains(says) && !error.contains('\n'), "{error}");
        }
    }
}
