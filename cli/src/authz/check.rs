//! `meshwork authz check`: whether a caller may call a method, decided by the function that servers use.
//!
//! What a service says of its audience in its code, it alone knows: whom it names for its meshwork.* methods, such as the
//! consumers of its events, this cannot tell.

use std::io::{self, Write as _};

use meshwork::{
    authorization::{Audience, Callers, Denial, Knowledge, OPEN_TO_EVERYONE, decide},
    contract::meshwork::registry::v1::AuthorizationPolicy,
    identity::{PeerIdentity, TlsMode},
};

use meshwork_process::to_stderr;

use super::method::Method;
use crate::{args::AuthzCheckArgs, directory::Directory, error::Error, table::printable};

/// How the names of those begin by which the mesh works.
const MESH: &str = "meshwork.";

/// `meshwork authz check --as ID SERVICE/METHOD`.
pub(super) async fn run(args: AuthzCheckArgs) -> Result<(), Error> {
    let AuthzCheckArgs { caller: id, method, mode, source } = args;
    let directory = Directory::open(&source)?;
    let certificate = directory.security().identity().map(|identity| identity.id().trust_domain().to_owned());
    let trust_domain = certificate.or(source.tls.trust_domain);
    let identity = id.identity(trust_domain.as_deref()).map_err(|problem| Error::flag("--as", &id, problem))?;
    let (mode, caller) = (mode.into(), seen(mode.into(), identity));
    let method = directory.method(&method).await?;
    let policy = directory.rules(&method.service).await?;
    let verdict = verdict(mode, &policy, &caller, &method)?;
    if source.json {
        writeln!(io::stdout(), "{}", json(&verdict, mode, &policy, &caller, &method))?;
    }
    match verdict {
        Verdict::Allowed(_) if source.json => Ok(()),
        Verdict::Allowed(reason) => Ok(writeln!(io::stdout(), "allowed: {}", printable(&reason))?),
        Verdict::Denied(reason) => Err(Error::Denied(reason)),
        Verdict::NotDecided(reason) => Err(Error::NotDecided(reason)),
    }
}

/// Who a caller is to a server: in plain text it cannot say.
fn seen(mode: TlsMode, caller: PeerIdentity) -> PeerIdentity {
    if mode == TlsMode::Plain && caller.spiffe_id().is_some() {
        to_stderr(format_args!("note: in plain mode, {} is anonymous like every caller", caller.name()));
        return PeerIdentity::ANONYMOUS;
    }
    caller
}

/// What comes of a call, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed(String),
    Denied(String),
    /// The service's code decides.
    NotDecided(String),
}

fn verdict(
    mode: TlsMode,
    policy: &AuthorizationPolicy,
    caller: &PeerIdentity,
    method: &Method,
) -> Result<Verdict, Error> {
    let knowledge = Knowledge::new(policy).map_err(|violations| Error::StrangePolicy(violations.to_string()))?;
    let audience = audience(&method.grpc_service);
    Ok(match decide(mode, &knowledge, &audience, caller, &method.path()) {
        Ok(()) => Verdict::Allowed(why_allowed(mode, &knowledge, &audience, caller, method)),
        Err(denial) => why_not(denial, policy, &audience, caller, method),
    })
}

/// Whom a gRPC service is for, as far as its name says it.
fn audience(grpc_service: &str) -> Audience {
    if OPEN_TO_EVERYONE.contains(&grpc_service) {
        Audience::Everyone
    } else if grpc_service.starts_with(MESH) {
        Audience::mesh(Callers::default())
    } else {
        Audience::Domain
    }
}

fn why_allowed(
    mode: TlsMode,
    knowledge: &Knowledge,
    audience: &Audience,
    caller: &PeerIdentity,
    method: &Method,
) -> String {
    let service = &method.service;
    let rule = knowledge.rules().and_then(|rules| Some((rules.allowed_by(caller, &method.path())?, rules.etag())));
    match (audience, rule) {
        (Audience::Everyone, _) => "health and reflection are open to everyone".to_owned(),
        (_, Some((index, etag))) => format!("allow[{index}] of {service} (etag {etag})"),
        (Audience::Mesh(_), None) if caller.is_operator() => "meshwork.* methods are open to operators".to_owned(),
        (Audience::Mesh(_), None) => {
            format!("outside of strict mode, {} is open while no rule names it", method.grpc_service)
        }
        (Audience::Domain, None) if mode == TlsMode::Strict => {
            format!("{service} has no rules, and is open to every caller of the trust domain")
        }
        (Audience::Domain, None) => format!("{service} has no rules, and is open to everyone"),
    }
}

fn why_not(
    denial: Denial,
    policy: &AuthorizationPolicy,
    audience: &Audience,
    caller: &PeerIdentity,
    method: &Method,
) -> Verdict {
    let (service, etag) = (&method.service, &policy.etag);
    match (denial, audience) {
        (Denial::DenyRule(index), _) => Verdict::Denied(format!("deny[{index}] of {service} (etag {etag})")),
        (Denial::Default, _) if caller.spiffe_id().is_none() => {
            Verdict::Denied("in strict mode, a caller needs an identity".to_owned())
        }
        (Denial::NoAllowRule | Denial::Default, Audience::Mesh(_)) => {
            let grpc_service = &method.grpc_service;
            Verdict::NotDecided(format!(
                "{grpc_service} is for operators, and the callers that {service} names in its code"
            ))
        }
        (Denial::NoAllowRule | Denial::Default, _) => {
            Verdict::Denied(format!("no rule of {service} (etag {etag}) allows {} to call {method}", caller.name()))
        }
        (Denial::RulesUnknown, _) => Verdict::Denied(format!("the rules of {service} are not known")),
    }
}

/// The verdict and what it is about; `allowed` is null where the service's code decides.
fn json(
    verdict: &Verdict,
    mode: TlsMode,
    policy: &AuthorizationPolicy,
    caller: &PeerIdentity,
    method: &Method,
) -> serde_json::Value {
    let (allowed, reason) = match verdict {
        Verdict::Allowed(reason) => (Some(true), reason),
        Verdict::Denied(reason) => (Some(false), reason),
        Verdict::NotDecided(reason) => (None, reason),
    };
    serde_json::json!({
        "allowed": allowed,
        "reason": reason,
        "caller": caller.name(),
        "service": method.service,
        "method": method.to_string(),
        "mode": mode.name(),
        "etag": policy.etag,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::shown::tests::rule, *};

    const EVENTS: &str = "meshwork.event.v1.EventService/Subscribe";

    fn rules() -> AuthorizationPolicy {
        AuthorizationPolicy {
            service: "order".into(),
            allow: vec![
                rule(&["operator/*"], &["a.C/*"]),
                rule(&["service/query", "service/web"], &["a.C/Get", "a.C/Put"]),
            ],
            deny: vec![rule(&["service/web"], &["a.C/Put", EVENTS])],
            etag: "7f".into(),
            ..AuthorizationPolicy::default()
        }
    }

    fn none() -> AuthorizationPolicy {
        AuthorizationPolicy { service: "order".into(), etag: "0".into(), ..AuthorizationPolicy::default() }
    }

    fn asked(mode: TlsMode, policy: &AuthorizationPolicy, caller: &str, method: &str) -> String {
        let caller: super::super::CallerId = caller.parse().expect("a caller");
        let caller = caller.identity(None).expect("of any domain");
        let (grpc_service, name) = method.split_once('/').expect("a method");
        let method = Method { service: "order".into(), grpc_service: grpc_service.into(), method: name.into() };
        match verdict(mode, policy, &caller, &method).expect("good rules") {
            Verdict::Allowed(reason) => format!("allowed: {reason}"),
            Verdict::Denied(reason) => Error::Denied(reason).to_string(),
            Verdict::NotDecided(reason) => Error::NotDecided(reason).to_string(),
        }
    }

    #[test]
    fn rules_decide_as_in_a_server_and_the_answer_names_the_rule() {
        for (caller, method, expected) in [
            ("operator/ada", "a.C/Any", "allowed: allow[0] of order (etag 7f)"),
            ("service/query", "a.C/Get", "allowed: allow[1] of order (etag 7f)"),
            ("service/web", "a.C/Put", "denied: deny[0] of order (etag 7f)"),
            ("service/query", "a.C/Cut", "denied: no rule of order (etag 7f) allows service/query to call a.C/Cut"),
            ("service/x", "grpc.health.v1.Health/Check", "allowed: health and reflection are open to everyone"),
            ("anonymous", "a.C/Get", "denied: in strict mode, a caller needs an identity"),
            ("anonymous", EVENTS, "denied: in strict mode, a caller needs an identity"),
            ("service/web", EVENTS, "denied: deny[0] of order (etag 7f)"),
            ("operator/ada", EVENTS, "allowed: meshwork.* methods are open to operators"),
        ] {
            assert_eq!(asked(TlsMode::Strict, &rules(), caller, method), expected);
        }
        let anonymous = "denied: no rule of order (etag 7f) allows anonymous to call a.C/Get";
        assert_eq!(asked(TlsMode::Permissive, &rules(), "anonymous", "a.C/Get"), anonymous);
    }

    #[test]
    fn without_rules_a_service_is_open_within_the_trust_domain() {
        let open = "allowed: order has no rules, and is open to every caller of the trust domain";
        assert_eq!(asked(TlsMode::Strict, &none(), "service/x", "a.C/Get"), open);
        let anonymous = "denied: in strict mode, a caller needs an identity";
        assert_eq!(asked(TlsMode::Strict, &none(), "anonymous", "a.C/Get"), anonymous);
        for mode in [TlsMode::Permissive, TlsMode::Plain] {
            let open = "allowed: order has no rules, and is open to everyone";
            assert_eq!(asked(mode, &none(), "anonymous", "a.C/Get"), open);
        }
    }

    #[test]
    fn whom_a_service_names_in_its_code_only_its_servers_know() {
        let open = "not decided by rules: meshwork.event.v1.EventService is for operators, and the callers that order names in its code";
        for policy in [rules(), none()] {
            assert_eq!(asked(TlsMode::Strict, &policy, "service/customer", EVENTS), open);
        }
        let named = AuthorizationPolicy { allow: vec![rule(&["service/a"], &[EVENTS])], ..none() };
        assert_eq!(asked(TlsMode::Strict, &named, "service/a", EVENTS), "allowed: allow[0] of order (etag 0)");
        assert_eq!(asked(TlsMode::Permissive, &named, "service/customer", EVENTS), open);
        assert_eq!(asked(TlsMode::Permissive, &named, "anonymous", EVENTS), open);
        let while_unnamed =
            "allowed: outside of strict mode, meshwork.event.v1.EventService is open while no rule names it";
        assert_eq!(asked(TlsMode::Permissive, &none(), "service/customer", EVENTS), while_unnamed);
    }

    #[test]
    fn a_policy_that_is_not_understood_is_no_verdict() {
        let strange = AuthorizationPolicy { allow: vec![rule(&["group/x"], &["a.C/Get"])], ..none() };
        let method = Method { service: "order".into(), grpc_service: "a.C".into(), method: "Get".into() };
        let error = verdict(TlsMode::Strict, &strange, &PeerIdentity::ANONYMOUS, &method).expect_err("unknown kind");
        assert!(matches!(error, Error::StrangePolicy(_)), "{error}");
    }
}
