//! An address as people type it.

use std::{fmt, str::FromStr};

/// `HOST:PORT`; the host is a name or an address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
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
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = "must be HOST:PORT, such as 127.0.0.1:7600 or [::1]:7600";
        let (host, port) = text.rsplit_once(':').ok_or(problem)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let good = !host.is_empty() && (bracketed || !host.contains([':', '/'])) && port.parse::<u16>().is_ok();
        if good { Ok(Self(text.to_owned())) } else { Err(problem) }
    }
}
