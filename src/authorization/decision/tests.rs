//! The whole table of the decision, against a model that is slow and obvious.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    authorization::check::tests::{policy, rule},
    contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
};

const MODES: [TlsMode; 3] = [TlsMode::Plain, TlsMode::Permissive, TlsMode::Strict];
const PEERS: [&str; 6] = ["", "service/order", "service/query", "operator/ada", "operator/eve", "gateway/edge"];
const CALLERS: [&str; 7] =
    ["service/order", "service/query", "operator/ada", "service/*", "operator/*", "anonymous", "*"];
const PATHS: [&str; 4] = ["a.C/Get", "a.C/Put", "a.D/Get", "a.CC/Get"];
const METHODS: [&str; 5] = ["a.C/Get", "a.C/Put", "a.C/*", "a.D/*", "a.D/Get"];

fn peer(path: &str) -> PeerIdentity {
    match path {
        "" => PeerIdentity::ANONYMOUS,
        path => PeerIdentity::verified(format!("spiffe://t/{path}").parse().expect("an id")),
    }
}

fn callers(texts: &[&str]) -> Callers {
    Callers::parse(texts).expect("callers")
}

fn known(policy: &AuthorizationPolicy) -> Knowledge {
    Knowledge::Rules(Arc::new(Rules::new(policy).expect("good rules")))
}

/// The same decision, read off the contract text by text.
fn model(
    mode: TlsMode,
    policy: Option<Option<&AuthorizationPolicy>>,
    audience: &Audience,
    path: &str,
    method: &str,
) -> &'static str {
    let is_one_of = |texts: &[String], path: &str| {
        texts.iter().any(|text| match text.as_str() {
            "*" => true,
            "anonymous" => path.is_empty(),
            "service/*" | "operator/*" => path.starts_with(&text[..text.len() - 1]),
            name => name == path,
        })
    };
    let matches = |rule: &AuthorizationRule| {
        let service = method.split('/').next().expect("there is one");
        let is_it = |text: &String| *text == method || *text == format!("{service}/*");
        is_one_of(&rule.callers, path) && rule.methods.iter().any(is_it)
    };
    let names = |policy: &AuthorizationPolicy| {
        let service = method.split('/').next().expect("there is one");
        let about = |text: &String| text.split('/').next() == Some(service);
        policy.allow.iter().any(|rule| rule.methods.iter().any(about))
    };
    match (audience, policy) {
        (Audience::Everyone, _) => "open",
        _ if mode == TlsMode::Strict && path.is_empty() => "default",
        (_, None) if mode == TlsMode::Plain => "open",
        (_, None) => "rules_unknown",
        (_, Some(Some(policy))) if policy.deny.iter().any(matches) => "deny_rule",
        (_, Some(Some(policy))) if policy.allow.iter().any(matches) => "open",
        (Audience::Domain, Some(None)) => "open",
        (Audience::Domain, Some(Some(_))) => "no_allow_rule",
        (Audience::Mesh(_), _) if path.starts_with("operator/") => "open",
        (Audience::Mesh(callers), _) if callers.contains(&peer(path)) => "open",
        (Audience::Mesh(_), Some(Some(policy))) if names(policy) => "no_allow_rule",
        (Audience::Mesh(_), Some(_)) if mode == TlsMode::Strict => "default",
        (Audience::Mesh(_), Some(_)) => "open",
    }
}

fn rules(most: usize) -> impl Strategy<Value = Vec<AuthorizationRule>> {
    let texts = |all: &'static [&'static str]| prop::sample::subsequence(all, 1..=2);
    let one = (texts(&CALLERS), texts(&METHODS)).prop_map(|(callers, methods)| rule(&callers, &methods));
    prop::collection::vec(one, 0..=most)
}

/// Rules that pass the check: the others are never in effect.
fn policies() -> impl Strategy<Value = Option<Option<AuthorizationPolicy>>> {
    let rules = (rules(3), rules(2)).prop_map(|(allow, deny)| AuthorizationPolicy { deny, ..policy(&allow) });
    let rules = rules.prop_filter("good rules", |policy| Rules::new(policy).is_ok());
    prop_oneof![1 => Just(None), 1 => Just(Some(None)), 8 => rules.prop_map(|policy| Some(Some(policy)))]
}

fn audiences() -> impl Strategy<Value = Audience> {
    let mesh = prop::sample::subsequence(&CALLERS[..2], 0..=2).prop_map(|texts| Audience::mesh(callers(&texts)));
    prop_oneof![Just(Audience::Everyone), Just(Audience::Domain), mesh]
}

proptest! {
    #[test]
    fn the_decision_is_that_of_the_contract(policy in policies(), audience in audiences()) {
        let knowledge = match &policy {
            None => Knowledge::Unknown,
            Some(None) => Knowledge::NEVER_SET,
            Some(Some(policy)) => known(policy),
        };
        for (mode, path, method) in every_call(&MODES, &PEERS, &PATHS) {
            let expected = model(mode, policy.as_ref().map(Option::as_ref), &audience, path, method);
            let decided = decide(mode, &knowledge, &audience, &peer(path), &format!("/{method}"));
            let decided = decided.map_or_else(Denial::name, |()| "open");
            prop_assert_eq!(decided, expected, "{:?} {:?} {}", mode, path, method);
        }
    }
}

fn every_call<'a>(
    modes: &'a [TlsMode],
    peers: &'a [&'a str],
    paths: &'a [&'a str],
) -> impl Iterator<Item = (TlsMode, &'a str, &'a str)> {
    let peers = modes.iter().flat_map(move |mode| peers.iter().map(move |peer| (*mode, *peer)));
    peers.flat_map(move |(mode, peer)| paths.iter().map(move |path| (mode, peer, *path)))
}

/// The lines of the table that people ask about, in words.
#[test]
fn what_is_closed_by_default_is_the_mesh_in_strict_mode_and_everything_whose_rules_are_unknown() {
    let (open, none) = (Ok(()), Knowledge::NEVER_SET);
    let feed = Audience::mesh(callers(&["service/query"]));
    let [anonymous, order, query, ada] = ["", "service/order", "service/query", "operator/ada"].map(peer);
    let ask = |mode, known: &Knowledge, audience: &Audience, who| decide(mode, known, audience, who, "/a.C/Get");
    for (mode, unknown, mesh) in [
        (TlsMode::Plain, open, open),
        (TlsMode::Permissive, Err(Denial::RulesUnknown), open),
        (TlsMode::Strict, Err(Denial::RulesUnknown), Err(Denial::Default)),
    ] {
        assert_eq!(ask(mode, &Knowledge::Unknown, &Audience::Domain, &order), unknown);
        assert_eq!(ask(mode, &Knowledge::Unknown, &feed, &ada), unknown, "operators too");
        assert_eq!(ask(mode, &Knowledge::Unknown, &Audience::Everyone, &anonymous), open);
        assert_eq!(ask(mode, &none, &Audience::Domain, &order), open);
        assert_eq!(ask(mode, &none, &feed, &order), mesh);
        assert_eq!(ask(mode, &none, &feed, &query), open);
        assert_eq!(ask(mode, &none, &feed, &ada), open);
    }
    assert_eq!(ask(TlsMode::Strict, &none, &Audience::Domain, &anonymous), Err(Denial::Default));
    let everyone = known(&policy(&[rule(&["*"], &["a.C/*"])]));
    assert_eq!(ask(TlsMode::Strict, &everyone, &feed, &order), open, "a rule opens the mesh's services too");
    assert_eq!(ask(TlsMode::Strict, &everyone, &Audience::Domain, &anonymous), Err(Denial::Default));
    let deny = AuthorizationPolicy {
        deny: vec![rule(&["operator/ada"], &["a.C/Get"])],
        ..policy(&[rule(&["*"], &["a.C/*"])])
    };
    assert_eq!(ask(TlsMode::Strict, &known(&deny), &feed, &ada), Err(Denial::DenyRule(0)));
}

#[test]
fn only_a_verified_caller_that_the_rules_name_speaks_for_an_end_user() {
    let named =
        AuthorizationPolicy { subject_callers: vec!["service/order".into()], ..policy(&[rule(&["*"], &["a.C/*"])]) };
    let keeps = |mode, path: &str| keeps_subject(mode, &known(&named), &peer(path));
    assert!(keeps(TlsMode::Strict, "service/order") && keeps(TlsMode::Permissive, "service/order"));
    assert!(!keeps(TlsMode::Plain, "service/order") && !keeps(TlsMode::Permissive, ""));
    assert!(!keeps(TlsMode::Strict, "service/query") && !keeps(TlsMode::Strict, "operator/ada"));
    for knowledge in [Knowledge::Unknown, Knowledge::NEVER_SET, known(&policy(&[rule(&["*"], &["a.C/*"])]))] {
        assert!(!keeps_subject(TlsMode::Strict, &knowledge, &peer("service/order")));
    }
}
