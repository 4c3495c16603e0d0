//! Rules as people read them: numbered as errors number them, a caller and a method in a line.

use meshwork::contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule};

use crate::table::{Align, Output, Table, printable};

/// The rules of one service, or that it has none.
pub(super) fn service(policy: &AuthorizationPolicy, output: Output) -> String {
    let service = printable(&policy.service);
    let mut text = if has_rules(policy) {
        let columns = ["RULE", "CALLERS", "METHODS"].map(|title| (title, Align::Left));
        let mut table = Table::new(columns).on(output);
        rows(policy).for_each(|row| table.row(row));
        format!(
            "{table}operators and the consumers that {service} names in its code may also call its meshwork.* methods\n"
        )
    } else {
        format!(
            "{service} has no rules: it is open to every caller of the trust domain\n\
             in strict mode, its meshwork.* methods are for operators and the consumers that it names in its code\n"
        )
    };
    if !policy.subject_callers.is_empty() {
        let callers = printable(&policy.subject_callers.join(", "));
        text += &format!("end users (meshwork-subject) are named by {callers}\n");
    }
    text + &version(policy)
}

/// The rules of several.
pub(super) fn list(policies: &[AuthorizationPolicy], output: Output) -> Table<4> {
    let columns = ["SERVICE", "RULE", "CALLERS", "METHODS"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns).on(output);
    for policy in policies {
        for [rule, callers, methods] in rows(policy) {
            table.row([printable(&policy.service), rule, callers, methods]);
        }
    }
    table
}

/// Whether there are any; otherwise they were deleted, or never set.
pub(super) fn has_rules(policy: &AuthorizationPolicy) -> bool {
    !policy.allow.is_empty() || !policy.deny.is_empty()
}

fn rows(policy: &AuthorizationPolicy) -> impl Iterator<Item = [String; 3]> + '_ {
    let lists = [("allow", &policy.allow), ("deny", &policy.deny)];
    let numbered = lists.into_iter().flat_map(|(list, rules)| rules.iter().enumerate().map(move |rule| (list, rule)));
    numbered.flat_map(|(list, (index, rule))| lines(format!("{list}[{index}]"), rule))
}

/// A rule, with its name in the first line.
fn lines(
    name: String,
    AuthorizationRule { callers, methods }: &AuthorizationRule,
) -> impl Iterator<Item = [String; 3]> {
    let nth = |texts: &[String], line: usize| texts.get(line).map(|text| printable(text)).unwrap_or_default();
    (0..callers.len().max(methods.len()))
        .map(move |line| [if line == 0 { name.clone() } else { String::new() }, nth(callers, line), nth(methods, line)])
}

fn version(policy: &AuthorizationPolicy) -> String {
    let etag = printable(&policy.etag);
    match policy.update_time {
        None => format!("etag {etag}\n"),
        Some(time) if has_rules(policy) => format!("etag {etag}, set {time}\n"),
        Some(time) => format!("etag {etag}, removed {time}\n"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::authz) fn rule(callers: &[&str], methods: &[&str]) -> AuthorizationRule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        AuthorizationRule { callers: owned(callers), methods: owned(methods) }
    }

    fn policy() -> AuthorizationPolicy {
        AuthorizationPolicy {
            service: "order".into(),
            allow: vec![
                rule(&["service/query", "operator/*", "service/web"], &["a.C/Get", "a.C/List"]),
                rule(&["service/web"], &["a.C/*"]),
            ],
            deny: vec![rule(&["service/web"], &["a.C/Cancel"])],
            subject_callers: vec!["service/web".into()],
            etag: "7f".into(),
            update_time: Some("2026-11-29T02:00:00Z".parse().expect("a time")),
        }
    }

    #[test]
    fn rules_are_numbered_with_all_callers_and_methods_below_each_other() {
        let expected = "\
RULE      CALLERS        METHODS
allow[0]  service/query  a.C/Get
          operator/*     a.C/List
          service/web
allow[1]  service/web    a.C/*
deny[0]   service/web    a.C/Cancel
operators and the consumers that order names in its code may also call its meshwork.* methods
end users (meshwork-subject) are named by service/web
etag 7f, set 2026-11-29T02:00:00Z
";
        assert_eq!(service(&policy(), Output::Pipe), expected);
    }

    #[test]
    fn without_rules_it_says_so_in_words_and_when_they_were_removed() {
        let never = AuthorizationPolicy { service: "order".into(), etag: "0".into(), ..AuthorizationPolicy::default() };
        let text = service(&never, Output::Pipe);
        assert!(text.starts_with("order has no rules: it is open to every caller of the trust domain\n"), "{text}");
        assert!(text.ends_with("\netag 0\n"), "{text}");
        let removed = AuthorizationPolicy { update_time: policy().update_time, ..never };
        assert!(service(&removed, Output::Pipe).ends_with("\netag 0, removed 2026-11-29T02:00:00Z\n"));
    }

    #[test]
    fn a_list_has_the_service_in_each_line_and_control_characters_do_not_reach_the_terminal() {
        let other = AuthorizationPolicy {
            service: "cust".into(),
            allow: vec![rule(&["service/\u{1b}[2J"], &["a.C/Get"])],
            ..AuthorizationPolicy::default()
        };
        let text = list(&[other, AuthorizationPolicy { deny: vec![], ..policy() }], Output::Pipe).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "SERVICE  RULE      CALLERS        METHODS");
        assert_eq!(lines[1], "cust     allow[0]  service/\u{fffd}[2J   a.C/Get");
        assert_eq!(lines[3], "order              operator/*     a.C/List");
        assert_eq!(lines.len(), 6);
    }
}
