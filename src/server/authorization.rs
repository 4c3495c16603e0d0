//! Who may call: the rules of the service, enforced before a call takes a place, and on streams as long as they last.
//!
//! The decision itself is [`decide`]. Here is where its rules come from, and what is said about a call that is denied: the caller
//! gets the rule set, itself and the method, in the message and in `google.rpc.ErrorInfo`; the log gets the same, and a metric counts.
//!
//! While rules are enforced and not known, the server is NOT_SERVING, so that clients and probes see that it is closed.

use std::{convert::Infallible, future::pending};

use http::Response;
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until},
};
use tonic::{Code, Status, body::Body};

use super::{Enforcement, fault, metrics};
use crate::{
    authorization::{Audience, Denial, Knowledge, decide, keeps_subject},
    endpoint_set::EndpointSet,
    headers::Refusal,
    health::{Condition, Conditioner},
    identity::{PeerIdentity, TlsMode},
    log_limit::{LogLimit, MAX_CAUSES},
    rpc::SERVER,
};

/// Discovery has read the cache by then: a server that is closed for longer is worth a line.
const PATIENCE: Duration = Duration::from_secs(3);
/// Characters of a method or a caller in messages and logs. Both come from the network.
const MAX_SHOWN: usize = 200;

/// Where a server learns its rules.
#[derive(Clone, Debug, Default)]
pub(super) enum Source {
    /// From nowhere: no rules can be set.
    #[default]
    Nowhere,
    /// From the mesh that it is announced in.
    Mesh(watch::Receiver<EndpointSet>),
    /// From its own process.
    Own(watch::Receiver<Knowledge>),
}

impl Source {
    /// What is known now.
    fn read<T>(&self, read: impl FnOnce(&Knowledge) -> T) -> T {
        match self {
            Self::Nowhere => read(&Knowledge::NEVER_SET),
            Self::Mesh(endpoints) => read(&endpoints.borrow().authorization),
            Self::Own(knowledge) => read(&knowledge.borrow()),
        }
    }

    /// Waits until it may have changed. Cancel-safe.
    async fn changed(&mut self) {
        let gone = match self {
            Self::Nowhere => true,
            Self::Mesh(endpoints) => endpoints.changed().await.is_err(),
            Self::Own(knowledge) => knowledge.changed().await.is_err(),
        };
        if gone {
            // What was known last stays.
            pending::<()>().await;
        }
    }
}

/// Whether the header that names an end user goes on to the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Kept,
    Removed,
}

/// Decides about the calls of a server.
pub(super) struct Authorization {
    service: String,
    mode: TlsMode,
    enforcement: Enforcement,
    source: Source,
    /// The rules are others: of a mesh, much else changes.
    changes: watch::Sender<()>,
    lines: Lines,
}

/// Limits the lines about each kind of denial: callers choose how many there are.
struct Lines {
    deny_rule: LogLimit,
    no_allow_rule: LogLimit,
    default: LogLimit,
    rules_unknown: LogLimit,
}

impl Authorization {
    pub(super) fn new(service: &str, mode: TlsMode, enforcement: Enforcement, source: Source) -> Self {
        let lines = || LogLimit::new(MAX_CAUSES);
        let lines = Lines { deny_rule: lines(), no_allow_rule: lines(), default: lines(), rules_unknown: lines() };
        Self { service: service.to_owned(), mode, enforcement, source, changes: watch::Sender::new(()), lines }
    }

    /// Whether a call may begin. `audience` is that of the gRPC service that is called.
    pub(super) fn authorize(
        &self,
        audience: &Audience,
        caller: &PeerIdentity,
        path: &str,
    ) -> Result<Subject, Box<Response<Body>>> {
        let (decided, subject) = self.source.read(|knowledge| {
            let decided = self.decide(knowledge, audience, caller, path);
            (decided, if keeps_subject(self.mode, knowledge, caller) { Subject::Kept } else { Subject::Removed })
        });
        if let Err(denied) = decided {
            self.tell(&denied);
            if self.enforcement == Enforcement::Enforce {
                return Err(Box::new(denied.answer(audience, &self.service)));
            }
        }
        Ok(subject)
    }

    /// Waits until the rules do not allow a call any more that has begun: why it ends. A dry run tells of calls only as they begin.
    pub(super) async fn not_allowed_any_more(&self, audience: &Audience, caller: &PeerIdentity, path: &str) -> Status {
        if self.enforcement == Enforcement::Log {
            return pending().await;
        }
        let mut changes = self.changes.subscribe();
        loop {
            // The first time at once: rules may have changed since the call was let in.
            let decided = self.source.read(|knowledge| self.decide(knowledge, audience, caller, path));
            if let Err(denied) = decided {
                self.tell(&denied);
                return denied.status(audience, &self.service);
            }
            changes.changed().await.expect("the sender is here");
        }
    }

    /// Wakes the streams when the rules change, without end.
    pub(super) async fn follow(&self) -> Infallible {
        let mut source = self.source.clone();
        // Not read at first: streams may have begun by other rules before this began.
        let mut known = None;
        loop {
            source.changed().await;
            let now = Some(source.read(Knowledge::clone));
            if now != known {
                known = now;
                self.changes.send_replace(());
            }
        }
    }

    fn decide(
        &self,
        knowledge: &Knowledge,
        audience: &Audience,
        caller: &PeerIdentity,
        path: &str,
    ) -> Result<(), Denied> {
        decide(self.mode, knowledge, audience, caller, path).map_err(|denial| Denied {
            denial,
            rules: knowledge.rules().map(|rules| format!("{} (etag {})", self.service, rules.etag())),
            caller: shown(caller.name()),
            method: shown(path.trim_start_matches('/')),
        })
    }

    fn tell(&self, denied: &Denied) {
        let Denied { denial, rules, caller, method } = denied;
        metrics::denied(*denial, self.enforcement);
        let limit = match denial {
            Denial::DenyRule(_) => &self.lines.deny_rule,
            Denial::NoAllowRule => &self.lines.no_allow_rule,
            Denial::Default => &self.lines.default,
            Denial::RulesUnknown => &self.lines.rules_unknown,
        };
        let Some(left_out) = limit.pass_once((caller, method)) else { return };
        let (reason, rules) = (denial.name(), rules.as_deref().unwrap_or("none"));
        match self.enforcement {
            Enforcement::Enforce => tracing::warn!(reason, rules, caller, method, "a call was denied{left_out}"),
            Enforcement::Log => {
                tracing::warn!(reason, rules, caller, method, "a call would be denied, and was let through{left_out}");
            }
        }
    }

    /// What keeps the server's health informed; `None`: unknown rules close nothing.
    pub(super) fn knowing(&self) -> Option<Knowing> {
        let closes = match self.enforcement {
            Enforcement::Enforce => self.mode != TlsMode::Plain,
            Enforcement::Log => false,
        };
        closes.then(|| {
            let (service, source) = (self.service.clone(), self.source.clone());
            Knowing { service, source, conditioner: Conditioner::default() }
        })
    }
}

/// A call that the rules do not allow.
struct Denied {
    denial: Denial,
    /// The rules that are in effect, with their version.
    rules: Option<String>,
    caller: String,
    method: String,
}

impl Denied {
    /// The answer to a call that does not begin.
    fn answer(&self, audience: &Audience, service: &str) -> Response<Body> {
        match self.denial {
            Denial::RulesUnknown => fault::refused(Refusal::RulesUnknown, unknown(service)),
            Denial::DenyRule(_) | Denial::NoAllowRule | Denial::Default => self.status(audience, service).into_http(),
        }
    }

    fn status(&self, audience: &Audience, service: &str) -> Status {
        let Self { denial, rules, caller, method } = self;
        let rules = rules.as_deref().unwrap_or(service);
        let (rule_set, message) = match denial {
            Denial::RulesUnknown => (rules.to_owned(), unknown(service)),
            Denial::DenyRule(index) => (
                format!("{rules} deny[{index}]"),
                format!("rule deny[{index}] of {rules} does not allow {caller} to call {method}"),
            ),
            Denial::NoAllowRule => {
                (rules.to_owned(), format!("the rules of {rules} do not allow {caller} to call {method}"))
            }
            Denial::Default => {
                let allowed = match audience {
                    Audience::Mesh(callers) => callers.to_string(),
                    Audience::Everyone | Audience::Domain => "callers with an identity".to_owned(),
                };
                ("default".to_owned(), format!("{method} is for {allowed} only, and not for {caller}"))
            }
        };
        let metadata = [("rule_set", rule_set.as_str()), ("caller", caller), ("method", method)];
        SERVER.error_about(Code::PermissionDenied, "NOT_ALLOWED", message, metadata)
    }
}

fn unknown(service: &str) -> String {
    format!(
        "the authorization rules of {service} are not known yet: not all registries have answered, and the cache has none"
    )
}

/// A text from the network: cut, and without what a terminal would act on.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Reports to the server's health whether the rules are known.
pub(super) struct Knowing {
    service: String,
    source: Source,
    conditioner: Conditioner,
}

impl Knowing {
    /// Whether they are.
    pub(super) fn condition(&self) -> Condition {
        self.tell();
        self.conditioner.condition()
    }

    /// Keeps the condition up to date, without end.
    pub(super) async fn follow(mut self) -> Infallible {
        let (late, mut said) = (Instant::now() + PATIENCE, false);
        loop {
            match (self.tell(), said) {
                (true, true) => {
                    tracing::info!(service = self.service, "the authorization rules are known now: calls are served");
                    said = false;
                }
                (false, false) if Instant::now() >= late => {
                    tracing::warn!("{}; calls are refused until then", unknown(&self.service));
                    said = true;
                }
                (true, false) | (false, true | false) => {}
            }
            // Both are cancel-safe: what is known is read anew.
            tokio::select! {
                () = self.source.changed() => {}
                () = sleep_until(late), if Instant::now() < late => {}
            }
        }
    }

    fn tell(&self) -> bool {
        let is_known = self.source.read(|knowledge| *knowledge != Knowledge::Unknown);
        self.conditioner.set(if is_known { Ok(()) } else { Err(unknown(&self.service)) });
        is_known
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        authorization::Rules,
        contract::meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
    };

    #[test]
    fn rules_that_change_before_anybody_follows_them_end_the_streams_that_began_before() {
        let (rules, own) = watch::channel(Knowledge::NEVER_SET);
        let authorization = Authorization::new("order", TlsMode::Plain, Enforcement::Enforce, Source::Own(own));
        let caller = PeerIdentity::default();
        let mut end = Box::pin(authorization.not_allowed_any_more(&Audience::Domain, &caller, "/shop.Order/Watch"));
        assert!(end.as_mut().now_or_never().is_none(), "there are no rules");
        let rule = AuthorizationRule { callers: vec!["service/query".into()], methods: vec!["shop.Order/*".into()] };
        let policy =
            AuthorizationPolicy { service: "order".into(), allow: vec![rule], ..AuthorizationPolicy::default() };
        rules.send_replace(Knowledge::Rules(Arc::new(Rules::new(&policy).expect("good rules"))));

        assert!(authorization.follow().now_or_never().is_none());

        assert_eq!(end.now_or_never().map(|status| status.code()), Some(Code::PermissionDenied));
    }
}
