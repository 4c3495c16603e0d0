//! Who may do what, by the identity of the caller's certificate. Pure.
//!
//! | | plain | permissive, anonymous | permissive or strict, with an identity |
//! |---|---|---|---|
//! | reads | all | all | all |
//! | registers, keeps and ends an instance | all | unless it is held under an identity | its own service, operators |
//! | policies, authorization, bindings, stores | all | none | operators |
//!
//! Permissive is for migrations, in which instances without an identity still come and go. A strict server takes no caller
//! without one; if it did, that caller could only read.

use meshwork::identity::{PeerIdentity, TlsMode};
use tonic::Extensions;

use crate::table::Held;

/// The rules of a mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access(pub(crate) TlsMode);

/// What a caller may do with the instances of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Register and replace them, and use their leases.
    All,
    /// The same, but for those that are held under an identity.
    Anonymous,
}

/// Why a caller is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    /// The instances are another service's.
    #[error("{caller} may not register or change instances of {service}: only service/{service} and operators may")]
    Instance { caller: String, service: String },
    /// An anonymous caller touches an instance that has an identity.
    #[error(transparent)]
    Held(#[from] Held),
    /// It concerns the whole mesh.
    #[error("{caller} may not {action}: only operators may")]
    Operators { caller: String, action: &'static str },
}

impl Access {
    /// Whom a call comes from. In plain mode none has an identity.
    pub(crate) fn caller(self, extensions: &Extensions) -> PeerIdentity {
        match self.0 {
            TlsMode::Plain => PeerIdentity::ANONYMOUS,
            TlsMode::Permissive | TlsMode::Strict => {
                extensions.get::<PeerIdentity>().cloned().unwrap_or(PeerIdentity::ANONYMOUS)
            }
        }
    }

    /// What it may do with the instances of `service`.
    pub(crate) fn instances(self, caller: &PeerIdentity, service: &str) -> Result<Reach, NotAllowed> {
        let is_anonymous = caller.spiffe_id().is_none();
        match self.0 {
            TlsMode::Plain => Ok(Reach::All),
            TlsMode::Permissive if is_anonymous => Ok(Reach::Anonymous),
            TlsMode::Permissive | TlsMode::Strict if caller.is_service(service) || caller.is_operator() => {
                Ok(Reach::All)
            }
            TlsMode::Permissive | TlsMode::Strict => {
                Err(NotAllowed::Instance { caller: caller.name().to_owned(), service: service.to_owned() })
            }
        }
    }

    /// Whether it may change what holds for the whole mesh; `action` says what, as in "set policies".
    pub(crate) fn operators(self, caller: &PeerIdentity, action: &'static str) -> Result<(), NotAllowed> {
        match self.0 {
            TlsMode::Plain => Ok(()),
            TlsMode::Permissive | TlsMode::Strict if caller.is_operator() => Ok(()),
            TlsMode::Permissive | TlsMode::Strict => {
                Err(NotAllowed::Operators { caller: caller.name().to_owned(), action })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(path: &str) -> PeerIdentity {
        PeerIdentity::verified(format!("spiffe://shop.test/{path}").parse().expect(path))
    }

    #[test]
    fn every_mode_and_every_caller_has_its_reach() {
        use TlsMode::{Permissive, Plain, Strict};
        let (order, customer, ada) = (peer("service/order"), peer("service/customer"), peer("operator/ada"));
        let other = peer("service/order/x");
        for (mode, caller, reach, operates) in [
            (Plain, &PeerIdentity::ANONYMOUS, Some(Reach::All), true),
            (Permissive, &PeerIdentity::ANONYMOUS, Some(Reach::Anonymous), false),
            (Permissive, &order, Some(Reach::All), false),
            (Permissive, &customer, None, false),
            (Permissive, &other, None, false),
            (Permissive, &ada, Some(Reach::All), true),
            (Strict, &PeerIdentity::ANONYMOUS, None, false),
            (Strict, &order, Some(Reach::All), false),
            (Strict, &customer, None, false),
            (Strict, &other, None, false),
            (Strict, &ada, Some(Reach::All), true),
        ] {
            let access = Access(mode);
            assert_eq!(access.instances(caller, "order").ok(), reach, "{mode:?}, {}", caller.name());
            assert_eq!(access.operators(caller, "set policies").is_ok(), operates, "{mode:?}, {}", caller.name());
        }
    }

    #[test]
    fn in_plain_mode_no_caller_has_an_identity() {
        let mut extensions = Extensions::new();
        extensions.insert(peer("operator/ada"));
        assert_eq!(Access(TlsMode::Plain).caller(&extensions), PeerIdentity::ANONYMOUS);
        assert_eq!(Access(TlsMode::Permissive).caller(&extensions).name(), "operator/ada");
        assert_eq!(Access(TlsMode::Strict).caller(&Extensions::new()), PeerIdentity::ANONYMOUS);
    }
}
