//! What an address is: `host:port`, read in one way by those who announce it, keep it, and call it.

use std::net::Ipv6Addr;

use http::uri::Authority;

/// Characters of an address: a host name has up to 253.
const MAX_LEN: usize = 255;

/// A text that is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be host:port, up to 255 characters, the host a name or an IP address, an IPv6 address in brackets")]
pub struct InvalidAddress;

/// Reads `host:port`. The host is a name or an IPv4 address, of letters, digits, `.`, `-` and `_`, or an IPv6 address in
/// brackets; the port is 1-65535.
///
/// # Errors
/// Anything else, such as a scheme, a user or a path.
pub fn parse_address(text: &str) -> Result<Authority, InvalidAddress> {
    let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
    let digits = port.bytes().all(|c| c.is_ascii_digit());
    let port_is_usable = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
    if text.len() > MAX_LEN || !port_is_usable || !is_host(host) {
        return Err(InvalidAddress);
    }
    text.parse().map_err(|_| InvalidAddress)
}

fn is_host(host: &str) -> bool {
    // An IPv6 address is written in brackets, or its end could not be told from a port.
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_is_an_address() {
        let long = |len: usize| format!("{}:7600", "h".repeat(len - 5));
        for good in
            ["127.0.0.1:7600", "[::1]:7600", "registry.local:1", "my_service-1:65535", "localhost:80", &long(MAX_LEN)]
        {
            assert_eq!(parse_address(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "host",
            "host:",
            ":7600",
            "host:0",
            "host:65536",
            "host:+1",
            "host:-1",
            "host:port",
            "http://host:1",
            "user@host:1",
            "user:secret@host:1",
            "host:1/path",
            "host/path:1",
            "host?query:1",
            "a b:1",
            "höst:1",
            "line\nbreak:1",
            "::1:7600",
            "[::1]",
            "[::1:7600",
            "[host]:1",
            "[::1]x:1",
            &long(MAX_LEN + 1),
        ] {
            assert_eq!(parse_address(bad), Err(InvalidAddress), "{bad:?}");
        }
    }
}
