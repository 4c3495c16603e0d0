//! The caller that `meshwork authz check` is asked about.

use std::{fmt, str::FromStr};

use meshwork::identity::{ANONYMOUS, InvalidSpiffeId, PeerIdentity, SpiffeId};

/// What stands for the trust domain where no certificate says one: decisions do not look at it.
const ANY_TRUST_DOMAIN: &str = "any";

/// A caller, as rules name it or by its whole identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerId {
    /// Without an identity.
    Anonymous,
    /// `service/NAME` or `operator/NAME`, in the trust domain of the mesh.
    Path(String),
    /// With its trust domain.
    Whole(SpiffeId),
}

/// A text that names no caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallerId {
    /// Nothing of the kind.
    #[error(
        "must be service/NAME, operator/NAME, anonymous, or a whole identity such as spiffe://shop.test/service/order"
    )]
    Kind,
    /// No certificate has this identity.
    #[error("is not a SPIFFE ID: {0}")]
    Whole(#[from] InvalidSpiffeId),
}

impl FromStr for CallerId {
    type Err = InvalidCallerId;

    fn from_str(text: &str) -> Result<Self, InvalidCallerId> {
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        if text.contains("://") {
            return Ok(Self::Whole(text.parse()?));
        }
        match in_domain(ANY_TRUST_DOMAIN, text) {
            Some(id) if id.service().is_some() || id.is_operator() => Ok(Self::Path(text.to_owned())),
            _ => Err(InvalidCallerId::Kind),
        }
    }
}

/// As it was typed.
impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::Path(path) => f.write_str(path),
            Self::Whole(id) => id.fmt(f),
        }
    }
}

impl CallerId {
    /// Who it is to a server of this trust domain, if that is known.
    ///
    /// # Errors
    /// It is of another one.
    pub(super) fn identity(&self, trust_domain: Option<&str>) -> Result<PeerIdentity, String> {
        match self {
            Self::Anonymous => Ok(PeerIdentity::ANONYMOUS),
            Self::Path(path) => {
                let id = in_domain(trust_domain.unwrap_or(ANY_TRUST_DOMAIN), path);
                Ok(PeerIdentity::verified(id.expect("it was checked")))
            }
            Self::Whole(id) => match trust_domain {
                Some(own) if own != id.trust_domain() => {
                    Err(format!("is not of the trust domain {own}, and no server of that takes it"))
                }
                _ => Ok(PeerIdentity::verified(id.clone())),
            },
        }
    }
}

fn in_domain(trust_domain: &str, path: &str) -> Option<SpiffeId> {
    format!("spiffe://{trust_domain}/{path}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_one_service_or_operator_or_anonymous_or_any_whole_identity() {
        for (text, name) in [
            ("service/order", "service/order"),
            ("operator/ada", "operator/ada"),
            ("anonymous", "anonymous"),
            ("spiffe://shop.test/service/order", "service/order"),
            ("spiffe://shop.test/gateway/x", "gateway/x"),
        ] {
            let caller: CallerId = text.parse().expect(text);
            assert_eq!(caller.identity(Some("shop.test")).expect("of the domain").name(), name);
            assert_eq!(caller.identity(None).expect("of any").name(), name);
        }
        for text in
            ["", "order", "service/*", "*", "service/Order", "service/", "operator/a/b", "gateway/x", "service/a/b"]
        {
            assert_eq!(text.parse::<CallerId>(), Err(InvalidCallerId::Kind), "{text}");
        }
        for text in ["spiffe://shop.test", "http://shop.test/service/order"] {
            assert!(matches!(text.parse::<CallerId>(), Err(InvalidCallerId::Whole(_))), "{text}");
        }
    }

    #[test]
    fn a_caller_of_another_trust_domain_is_no_caller() {
        let caller: CallerId = "spiffe://shop.test/service/order".parse().expect("an identity");
        let problem = caller.identity(Some("mall.test")).expect_err("another domain");
        assert_eq!(problem, "is not of the trust domain mall.test, and no server of that takes it");
    }
}
