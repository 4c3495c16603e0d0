//! Who somebody is: a SPIFFE ID, as a certificate says it, and the caller of a call.
//!
//! Source of the rules: the SPIFFE-ID and X509-SVID specifications (<https://github.com/spiffe/spiffe/tree/main/standards>).

use std::{fmt, str::FromStr, sync::Arc};

use crate::service_name::{InvalidServiceName, check_service_name};

/// Bytes of an ID (SPIFFE-ID, 2.3).
const MAX_LEN: usize = 2048;
/// Bytes of a trust domain's name (SPIFFE-ID, 2.3).
const MAX_TRUST_DOMAIN_LEN: usize = 255;
/// The service that the registry is.
pub const REGISTRY: &str = "registry";
/// What callers without an identity are called.
pub const ANONYMOUS: &str = "anonymous";

const SCHEME: &str = "spiffe://";
const SERVICE: &str = "service/";
const OPERATOR: &str = "operator/";

/// A SPIFFE ID: `spiffe://TRUST_DOMAIN/PATH`. Meshwork gives out `service/NAME` and `operator/NAME` as paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    trust_domain_len: usize,
}

/// A text that is not a SPIFFE ID, or not the name of a trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Another scheme.
    #[error("must begin with spiffe://")]
    Scheme,
    /// The trust domain is missing, too long, or has other characters.
    #[error("the trust domain must be 1-255 characters of [a-z0-9._-]")]
    TrustDomain,
    /// There is none, or it has other characters, or an empty or relative segment.
    #[error("the path must be segments of [a-zA-Z0-9._-] that are not empty, \".\" or \"..\"")]
    Path,
    /// Longer than 2,048 bytes.
    #[error("must be up to 2,048 bytes long")]
    TooLong,
}

/// Whether this can be a trust domain: 1-255 characters of `[a-z0-9._-]`.
///
/// # Errors
/// Anything else.
pub fn check_trust_domain(name: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let good = (1..=MAX_TRUST_DOMAIN_LEN).contains(&name.len()) && name.bytes().all(allowed);
    if good { Ok(()) } else { Err(InvalidSpiffeId::TrustDomain) }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > MAX_LEN {
            return Err(InvalidSpiffeId::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(InvalidSpiffeId::Path)?;
        check_trust_domain(trust_domain)?;
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(allowed);
        if !path.split('/').all(is_segment) {
            return Err(InvalidSpiffeId::Path);
        }
        Ok(Self { text: text.to_owned(), trust_domain_len: trust_domain.len() })
    }
}

impl SpiffeId {
    /// The identity of a service.
    ///
    /// # Errors
    /// It is not the name of one. The trust domain is not looked at.
    pub fn of_service(trust_domain: &str, service: &str) -> Result<Self, InvalidServiceName> {
        check_service_name(service)?;
        let text = format!("{SCHEME}{trust_domain}/{SERVICE}{service}");
        Ok(Self { text, trust_domain_len: trust_domain.len() })
    }

    /// The whole of it, with its scheme.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..SCHEME.len() + self.trust_domain_len]
    }

    /// What comes after the trust domain, as in `service/order`: how rules and people name it.
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.trust_domain_len + 1..]
    }

    /// The service that it is the identity of, if it is a service's.
    pub fn service(&self) -> Option<&str> {
        self.path().strip_prefix(SERVICE).filter(|name| check_service_name(name).is_ok())
    }

    /// Whether it is an operator's.
    pub fn is_operator(&self) -> bool {
        self.path().strip_prefix(OPERATOR).is_some_and(|name| !name.contains('/'))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whom a call comes from, as the certificate of its connection said it: an extension of each request. A cheap clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity(Option<Arc<SpiffeId>>);

impl PeerIdentity {
    /// A caller that has shown no certificate.
    pub const ANONYMOUS: Self = Self(None);

    /// The caller with this identity. Whoever makes it has verified it.
    pub fn verified(id: SpiffeId) -> Self {
        Self(Some(Arc::new(id)))
    }

    /// Its identity; `None`: it has none.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.as_deref()
    }

    /// How rules, logs and errors name it: `service/order`, or `anonymous`.
    pub fn name(&self) -> &str {
        self.spiffe_id().map_or(ANONYMOUS, SpiffeId::path)
    }

    /// Whether it is an instance of this service.
    pub fn is_service(&self, service: &str) -> bool {
        self.spiffe_id().and_then(SpiffeId::service) == Some(service)
    }

    /// Whether it is an operator.
    pub fn is_operator(&self) -> bool {
        self.spiffe_id().is_some_and(SpiffeId::is_operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().expect(text)
    }

    #[test]
    fn an_id_has_a_trust_domain_and_a_path_and_nothing_else() {
        let order = id("spiffe://shop.test/service/order");
        assert_eq!(
            (order.trust_domain(), order.path(), order.service()),
            ("shop.test", "service/order", Some("order"))
        );
        assert_eq!(SpiffeId::of_service("shop.test", "order"), Ok(order));
        assert!(SpiffeId::of_service("shop.test", "Order").is_err());
        for (bad, problem) in [
            ("", InvalidSpiffeId::Scheme),
            ("https://shop.test/service/order", InvalidSpiffeId::Scheme),
            ("SPIFFE://shop.test/a", InvalidSpiffeId::Scheme),
            ("spiffe:///service/order", InvalidSpiffeId::TrustDomain),
            ("spiffe://Shop.test/a", InvalidSpiffeId::TrustDomain),
            ("spiffe://me@shop.test/a", InvalidSpiffeId::TrustDomain),
            ("spiffe://shop.test:443/a", InvalidSpiffeId::TrustDomain),
            ("spiffe://shop.test", InvalidSpiffeId::Path),
            ("spiffe://shop.test/", InvalidSpiffeId::Path),
            ("spiffe://shop.test/a/", InvalidSpiffeId::Path),
            ("spiffe://shop.test//a", InvalidSpiffeId::Path),
            ("spiffe://shop.test/a/../b", InvalidSpiffeId::Path),
            ("spiffe://shop.test/a?b", InvalidSpiffeId::Path),
            ("spiffe://shop.test/a#b", InvalidSpiffeId::Path),
            ("spiffe://shop.test/%61", InvalidSpiffeId::Path),
            (&format!("spiffe://shop.test/{}", "a".repeat(MAX_LEN)), InvalidSpiffeId::TooLong),
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(problem), "{bad}");
        }
    }

    #[test]
    fn a_peer_is_named_by_its_path_and_is_a_service_or_an_operator_only_by_the_whole_of_it() {
        let peer = |text: &str| PeerIdentity::verified(id(text));
        let order = peer("spiffe://t/service/order");
        assert_eq!((order.name(), order.is_service("order"), order.is_operator()), ("service/order", true, false));
        assert!(!order.is_service("orde") && !peer("spiffe://t/service/order/x").is_service("order"));
        let ada = peer("spiffe://t/operator/ada");
        assert_eq!((ada.name(), ada.is_operator(), ada.is_service("ada")), ("operator/ada", true, false));
        assert!(!peer("spiffe://t/operator/a/b").is_operator() && !peer("spiffe://t/operators/a").is_operator());
        assert!(!peer("spiffe://t/x/operator/a").is_operator());
        let nobody = PeerIdentity::ANONYMOUS;
        assert_eq!((nobody.name(), nobody.is_service("anonymous"), nobody.is_operator()), ("anonymous", false, false));
    }
}
