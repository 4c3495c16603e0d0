//! Where a call is sent: which instance, and at which address.

use std::{fmt, sync::Arc};

use http::{HeaderValue, uri::Authority};

use crate::address::parse_address;

/// One endpoint at one address, cheap to copy.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Arc<str>,
    authority: Authority,
    /// Which instance must answer; `None` at a fixed address: any.
    instance: Option<HeaderValue>,
}

/// An address or an instance id that cannot be put into a request.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} cannot be called: it must be host:port, and its instance id visible ASCII characters")]
pub(crate) struct InvalidPeer(String);

impl Peer {
    /// An endpoint at `address`, host:port.
    pub(crate) fn new(address: &str, instance_id: Option<&str>) -> Result<Self, InvalidPeer> {
        let invalid = || InvalidPeer(format!("{}@{address}", instance_id.unwrap_or_default()));
        let authority = parse_address(address).map_err(|_| invalid())?;
        let instance = instance_id.map(HeaderValue::from_str).transpose().map_err(|_| invalid())?;
        Ok(Self(Arc::new(Inner { address: address.into(), authority, instance })))
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.0.address
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(crate) fn instance(&self) -> Option<&HeaderValue> {
        self.0.instance.as_ref()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance().and_then(|instance| instance.to_str().ok()) {
            Some(instance) => write!(f, "{instance}@{}", self.0.address),
            None => f.write_str(&self.0.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_and_an_id_that_fit_into_a_request_are_a_peer() {
        assert_eq!(Peer::new("host:1", Some("a")).expect("a peer").to_string(), "a@host:1");
        assert!(Peer::new("user@host:1", None).is_err());
        assert!(Peer::new("host:1", Some("line\nbreak")).is_err());
    }
}
