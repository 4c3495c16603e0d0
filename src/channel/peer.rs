//! Who a call is sent to.

use std::{fmt, sync::Arc};

use http::{HeaderValue, uri::Authority};

/// One endpoint at one address, cheap to copy.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Arc<str>,
    authority: Authority,
    /// Which instance must answer; nobody in particular at a fixed address.
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
        let authority: Authority = address.parse().map_err(|_| invalid())?;
        if authority.port().is_none() || address.contains('@') {
            return Err(invalid());
        }
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
    fn only_host_and_port_is_an_address() {
        for address in ["127.0.0.1:7600", "[::1]:7600", "registry.local:1"] {
            assert_eq!(Peer::new(address, Some("a")).expect(address).to_string(), format!("a@{address}"));
        }
        for address in ["", "host", "http://host:1", "user@host:1", "host:1/path", "host:port", "a b:1"] {
            assert!(Peer::new(address, None).is_err(), "{address:?}");
        }
        assert!(Peer::new("host:1", Some("line\nbreak")).is_err());
    }
}
