//! Whether a call may begin: THE decision, of the rules and of what holds without them.
//!
//! | a gRPC service is | rules unknown | no rules | rules |
//! |---|---|---|---|
//! | gRPC's own | open | open | open |
//! | the user's | closed; in plain mode open | open | open to callers that `allow` names |
//! | the mesh's, strict mode | closed | open to operators and its own callers | also to callers that `allow` names |
//! | the mesh's, other modes | closed; in plain mode open | open | as in strict mode if `allow` names it; else open |
//!
//! Except for the first line, a `deny` rule goes before everything else, and in strict mode a caller needs an identity.

use super::{
    callers::Callers,
    knowledge::Knowledge,
    rules::{Decision, Rules},
};
use crate::identity::{PeerIdentity, TlsMode};

/// Whom a gRPC service is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everyone, whatever the rules say: gRPC's own services, health and reflection.
    Everyone,
    /// Whom the rules allow, or everyone without rules: a user's service.
    Domain,
    /// These callers, and whom the rules allow: a service by which the mesh works. Made by [`Audience::mesh`].
    Mesh(Callers),
}

impl Audience {
    /// Operators, these callers, and whom the rules allow.
    pub fn mesh(callers: Callers) -> Self {
        Self::Mesh(callers.and_operators())
    }
}

/// Why a call may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The rule of `deny` with this index matches.
    DenyRule(usize),
    /// There are rules, and none allows it.
    NoAllowRule,
    /// It is not open without a rule that allows it.
    Default,
    /// The rules are not known.
    RulesUnknown,
}

impl Denial {
    /// What metrics and logs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenyRule(_) => "deny_rule",
            Self::NoAllowRule => "no_allow_rule",
            Self::Default => "default",
            Self::RulesUnknown => "rules_unknown",
        }
    }
}

/// Whether `caller` may call the method at `path` (`/PACKAGE.SERVICE/METHOD`).
///
/// # Errors
/// It may not.
pub fn decide(
    mode: TlsMode,
    knowledge: &Knowledge,
    audience: &Audience,
    caller: &PeerIdentity,
    path: &str,
) -> Result<(), Denial> {
    let its_callers = match audience {
        Audience::Everyone => return Ok(()),
        Audience::Domain => None,
        Audience::Mesh(callers) => Some(callers),
    };
    if mode == TlsMode::Strict && caller.spiffe_id().is_none() {
        // A connection without a certificate does not come this far; no rule can let it in.
        return Err(Denial::Default);
    }
    let rules = match knowledge {
        Knowledge::Unknown if mode == TlsMode::Plain => return Ok(()),
        Knowledge::Unknown => return Err(Denial::RulesUnknown),
        Knowledge::None { .. } => None,
        Knowledge::Rules(rules) => Some(&**rules),
    };
    let allowed = match rules.map(|rules| rules.decide(caller, path)) {
        Some(Decision::Denied { by }) => return Err(Denial::DenyRule(by)),
        Some(Decision::Allowed) => true,
        Some(Decision::NotAllowed) | None => false,
    };
    let denial = match its_callers {
        None => rules.map(|_| Denial::NoAllowRule),
        Some(callers) if callers.contains(caller) => None,
        Some(_) => mesh_default(mode, rules, path),
    };
    match denial {
        Some(denial) if !allowed => Err(denial),
        Some(_) | None => Ok(()),
    }
}

/// How a service of the mesh is closed to all but its own callers, if it is.
fn mesh_default(mode: TlsMode, rules: Option<&Rules>, path: &str) -> Option<Denial> {
    if rules.is_some_and(|rules| rules.name_service_of(path)) {
        return Some(Denial::NoAllowRule);
    }
    (mode == TlsMode::Strict).then_some(Denial::Default)
}

/// Whether a caller is believed when it names an end user (`meshwork-subject`): it is verified, and the rules name it.
pub fn keeps_subject(mode: TlsMode, knowledge: &Knowledge, caller: &PeerIdentity) -> bool {
    let rules = knowledge.rules().filter(|_| mode != TlsMode::Plain && caller.spiffe_id().is_some());
    rules.is_some_and(|rules| rules.subject_callers().contains(caller))
}

#[cfg(test)]
mod tests;
