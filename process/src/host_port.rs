//! An address as people type it.

use std::{fmt, str::FromStr};

use meshwork::address::{InvalidAddress, parse_advertised, split_address};

/// `HOST:PORT`; the host is a name or an address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// Reads an address that others are to connect to.
    pub(crate) fn advertised(text: &str) -> Result<Self, InvalidAddress> {
        parse_advertised(text).map(|_| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostPort {
    type Err = InvalidAddress;

    /// The port may be 0.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        split_address(text).map(|_| Self(text.to_owned()))
    }
}
