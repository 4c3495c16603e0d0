//! A lease's id: a secret nonce, and the instance that it was given for.
//!
//! Because the id says which instance it is about, "fenced" (another lease holds the instance) and "unknown" (none does)
//! can be distinguished without remembering old leases, even those that the registry granted before a restart.

use std::fmt;

use uuid::Uuid;

/// Opaque to clients; its holder may renew, change and end the lease.
///
/// The nonce is a UUID of version 4: 122 bits of a cryptographic generator. Version 7 would have 74, after a time that can be
/// guessed. Ids are compared as text, which stops at the first difference: the time that this takes tells at best whether 16
/// bytes were right at once.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseId(String);

impl LeaseId {
    /// Longer text was never given out: nonce, service and instance_id at their limits.
    pub const MAX_LEN: usize = 36 + 1 + 63 + 1 + 128;

    /// The id of a new lease. A service's name has no `/`, so that the parts can be separated.
    pub fn new(service: &str, instance_id: &str, nonce: Uuid) -> Self {
        Self(format!("{nonce}/{service}/{instance_id}"))
    }

    /// An id as a client sent it; any text will do, most of it is no lease.
    pub fn from_client(text: String) -> Self {
        Self(text)
    }

    /// The service and instance_id it was given for. `None`: it was never given.
    pub fn instance(&self) -> Option<(&str, &str)> {
        let (_, instance) = self.0.split_once('/')?;
        instance.split_once('/')
    }

    /// As clients see it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As clients see it.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// `service/instance_id`. Leaves out the nonce: logs are no place for it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance() {
            Some((service, instance_id)) => write!(f, "{service}/{instance_id}"),
            None => f.write_str("never given"),
        }
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_its_instance_but_not_its_nonce() {
        let nonce = Uuid::from_u128(7);
        let id = LeaseId::new("order", "a/b", nonce);
        assert_eq!(id.instance(), Some(("order", "a/b")));
        assert!(!format!("{id:?}").contains(&nonce.to_string()));
        for garbage in ["", "x", "x/y"] {
            assert_eq!(LeaseId::from_client(garbage.into()).instance(), None);
        }
    }
}
