//! An address, `host:port`: announcing, keeping and calling it all parse it in the same way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::uri::Authority;

/// Characters of a host's name (RFC 1035, without the dot at its end).
const MAX_HOST_LEN: usize = 253;
/// Characters of an address: a host, a colon and a port.
const MAX_LEN: usize = MAX_HOST_LEN + 6;
/// Characters between two dots of a name.
const MAX_LABEL_LEN: usize = 63;

/// What is wrong with a text that is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// There is none.
    #[error("is empty: must be HOST:PORT")]
    Empty,
    /// It has more characters than any address.
    #[error("must be up to {MAX_LEN} characters")]
    TooLong,
    /// It begins with a scheme, such as `http://`.
    #[error("must be HOST:PORT, without a scheme")]
    Scheme,
    /// It has a user, a path or a query.
    #[error("must be HOST:PORT, without a user, path or query")]
    Extra,
    /// The port is missing.
    #[error("has no port: must be HOST:PORT, such as 127.0.0.1:9100")]
    NoPort,
    /// The port is not one that can be connected to.
    #[error("must be HOST:PORT, with a port of 1-65535")]
    Port,
    /// The port is not one that can be listened on.
    #[error("must be HOST:PORT, with a port of 0-65535")]
    ListenPort,
    /// An IPv6 address, whose end cannot be told from a port.
    #[error("must be HOST:PORT, with an IPv6 address in brackets, such as [::1]:7600")]
    Brackets,
    /// The host is neither a name nor an IP address.
    #[error(
        "must be HOST:PORT, with a host name (letters, digits, '-' and '_', separated by '.') or an IP address as its host"
    )]
    Host,
    /// The host is `0.0.0.0` or `[::]`.
    #[error("names all addresses of a machine: it must be one that others can connect to")]
    Unspecified,
    /// The host is a multicast address, or the broadcast address.
    #[error("names several machines: it must be an address that others can connect to")]
    Multicast,
    /// It is an address of a registry with another scheme.
    #[error("must be HOST:PORT, http://HOST:PORT or https://HOST:PORT: other schemes are not supported")]
    OtherScheme,
    /// There is none in a list of registries.
    #[error("an address is empty: must be HOST:PORT or http://HOST:PORT")]
    EmptyRegistry,
    /// It is an address of a registry with a user, a path or a query.
    #[error("must be HOST:PORT or http://HOST:PORT, without a user, path or query")]
    RegistryExtra,
    /// It is an address of a registry without a port.
    #[error("has no port: must be HOST:PORT, such as 127.0.0.1:7600")]
    RegistryNoPort,
}

/// Reads `host:port`. The host is a name or an IPv4 address, of letters, digits, `.`, `-` and `_`, or an IPv6 address in
/// brackets; the port is 1-65535.
///
/// # Errors
/// Anything else, such as a scheme, a user or a path.
pub fn parse_address(text: &str) -> Result<Authority, InvalidAddress> {
    if text.is_empty() {
        return Err(InvalidAddress::Empty);
    }
    if text.len() > MAX_LEN {
        return Err(InvalidAddress::TooLong);
    }
    let (_, port) = split_address(text).map_err(|problem| match problem {
        InvalidAddress::ListenPort => InvalidAddress::Port,
        problem => problem,
    })?;
    if port == 0 { Err(InvalidAddress::Port) } else { text.parse().map_err(|_| InvalidAddress::Host) }
}

/// Reads `host:port` as [`parse_address`], but the port may also be 0: where a server listens.
///
/// # Errors
/// [`InvalidAddress`].
pub fn split_address(text: &str) -> Result<(&str, u16), InvalidAddress> {
    if text.contains("://") {
        return Err(InvalidAddress::Scheme);
    }
    if text.contains(['/', '?', '#', '@']) {
        return Err(InvalidAddress::Extra);
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(InvalidAddress::Brackets);
    }
    let (host, port) = text.rsplit_once(':').filter(|(_, port)| !port.contains(']')).ok_or(InvalidAddress::NoPort)?;
    if host.is_empty() {
        return Err(InvalidAddress::Host);
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(InvalidAddress::Brackets);
    }
    if !is_host(host) {
        return Err(InvalidAddress::Host);
    }
    if port.is_empty() {
        return Err(InvalidAddress::NoPort);
    }
    let digits = port.bytes().all(|c| c.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or(InvalidAddress::ListenPort)?;
    Ok((host, port))
}

/// Reads an address that others are to connect to: [`parse_address`], and not one of all of a machine's addresses or of several
/// machines.
///
/// # Errors
/// [`InvalidAddress`].
pub fn parse_advertised(text: &str) -> Result<Authority, InvalidAddress> {
    let address = parse_address(text)?;
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_unspecified() => Err(InvalidAddress::Unspecified),
        Ok(address) if address.is_multicast() || address == Ipv4Addr::BROADCAST => Err(InvalidAddress::Multicast),
        // The resolver reads such a number as an IPv4 address.
        Err(_) if host.bytes().all(|c| c == b'0') => Err(InvalidAddress::Unspecified),
        Ok(_) | Err(_) => Ok(address),
    }
}

/// Reads the address of a registry: `host:port`, after `http://` or `https://` or neither, with or without a `/` at its end; returns
/// `host:port`. Whether connections are encrypted follows from the process's mode; `https://` only insists on it (see
/// [`MeshBuilder::registries`](crate::MeshBuilder::registries)).
///
/// # Errors
/// [`InvalidAddress`].
pub fn parse_registry(text: &str) -> Result<&str, InvalidAddress> {
    let plain = match text.split_once("://") {
        None => text,
        Some(("http" | "https", plain)) => plain,
        Some(_) => return Err(InvalidAddress::OtherScheme),
    };
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    parse_address(plain).map(|_| plain).map_err(|problem| match problem {
        InvalidAddress::Empty => InvalidAddress::EmptyRegistry,
        InvalidAddress::Extra => InvalidAddress::RegistryExtra,
        InvalidAddress::NoPort => InvalidAddress::RegistryNoPort,
        problem => problem,
    })
}

fn is_host(host: &str) -> bool {
    // An IPv6 address is written in brackets, or its end could not be told from a port.
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // What looks like an IPv4 address is no name (RFC 3696, section 2).
    if host.contains('.') && host.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    // RFC 1123, section 2.1, and the underscore, which many resolvers take; a dot at the end makes a name absolute.
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=MAX_LABEL_LEN).contains(&bytes.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= MAX_HOST_LEN && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_is_an_address_and_an_error_says_what_is_wrong() {
        let long = |len: usize| format!("{}:65535", &"h23456789.".repeat(30)[..len]);
        for good in [
            "127.0.0.1:7600",
            "[::1]:7600",
            "registry.local:1",
            "my_service-1:65535",
            "localhost:80",
            "absolute.:80",
            &long(MAX_HOST_LEN),
        ] {
            assert_eq!(parse_address(good).expect(good).as_str(), good);
        }
        for (bad, problem) in [
            ("", InvalidAddress::Empty),
            ("host", InvalidAddress::NoPort),
            ("7600", InvalidAddress::NoPort),
            ("host:", InvalidAddress::NoPort),
            (":7600", InvalidAddress::Host),
            ("host:0", InvalidAddress::Port),
            ("host:65536", InvalidAddress::Port),
            ("host:+1", InvalidAddress::Port),
            ("host:-1", InvalidAddress::Port),
            ("host:port", InvalidAddress::Port),
            ("http://host:1", InvalidAddress::Scheme),
            ("user@host:1", InvalidAddress::Extra),
            ("user:secret@host:1", InvalidAddress::Extra),
            ("host:1/path", InvalidAddress::Extra),
            ("host/path:1", InvalidAddress::Extra),
            ("host?query:1", InvalidAddress::Extra),
            ("a b:1", InvalidAddress::Host),
            ("-a:1", InvalidAddress::Host),
            ("a-:1", InvalidAddress::Host),
            ("a..b:1", InvalidAddress::Host),
            (".:1", InvalidAddress::Host),
            (&format!("{}:1", "h".repeat(64)), InvalidAddress::Host),
            ("höst:1", InvalidAddress::Host),
            ("line\nbreak:1", InvalidAddress::Host),
            ("256.1.1.1:1", InvalidAddress::Host),
            ("1.2.3:1", InvalidAddress::Host),
            ("::1:7600", InvalidAddress::Brackets),
            ("::1", InvalidAddress::Brackets),
            ("[::1]", InvalidAddress::NoPort),
            ("[::1:7600", InvalidAddress::Host),
            ("[host]:1", InvalidAddress::Host),
            ("[::1]x:1", InvalidAddress::Host),
            (&long(MAX_HOST_LEN + 1), InvalidAddress::TooLong),
            (&long(MAX_HOST_LEN + 1).replace(":65535", ":1"), InvalidAddress::Host),
        ] {
            assert_eq!(parse_address(bad), Err(problem), "{bad:?}");
        }
        assert_eq!(split_address("host:0"), Ok(("host", 0)));
        assert_eq!(split_address("host:65536"), Err(InvalidAddress::ListenPort));
    }

    #[test]
    fn what_nothing_can_connect_to_is_not_advertised() {
        for bad in ["0.0.0.0:1", "[::]:1", "[::ffff:0.0.0.0]:1", "0:1", "[0:0:0:0:0:0:0:0]:80"] {
            assert_eq!(parse_advertised(bad), Err(InvalidAddress::Unspecified), "{bad}");
        }
        for bad in ["224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1", "[::ffff:224.0.0.1]:1"] {
            assert_eq!(parse_advertised(bad), Err(InvalidAddress::Multicast), "{bad}");
        }
        assert_eq!(parse_advertised("host:0"), Err(InvalidAddress::Port));
        for good in ["127.0.0.1:1", "[::1]:1", "host:1", "10.0.0.0:80", "host-0:1"] {
            assert!(parse_advertised(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_registrys_address_may_have_its_scheme() {
        for good in ["host:7600", "http://host:7600", "http://host:7600/", "https://host:7600"] {
            assert_eq!(parse_registry(good), Ok("host:7600"));
        }
        for (bad, problem) in [
            ("ftp://host:7600", InvalidAddress::OtherScheme),
            ("http://", InvalidAddress::EmptyRegistry),
            ("http://host", InvalidAddress::RegistryNoPort),
            ("http://host:1/path", InvalidAddress::RegistryExtra),
            ("http://user@host:7600", InvalidAddress::RegistryExtra),
        ] {
            assert_eq!(parse_registry(bad), Err(problem), "{bad}");
        }
    }
}
