//! The name of a service in the mesh: registering, keeping and calling it all check it in the same way.

/// Characters of a name, as of a DNS label (RFC 1123).
const MAX_LEN: usize = 63;

/// A text that is not the name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServiceName {
    /// There is none.
    #[error("is required")]
    Empty,
    /// It is too long, or has other characters.
    #[error("must be 1-63 lowercase letters, digits and hyphens")]
    Malformed,
}

/// Whether this can be the name of a service: 1-63 characters of `[a-z0-9-]`.
///
/// # Errors
/// Anything else.
pub fn check_service_name(name: &str) -> Result<(), InvalidServiceName> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match name.len() {
        0 => Err(InvalidServiceName::Empty),
        1..=MAX_LEN if name.bytes().all(allowed) => Ok(()),
        _ => Err(InvalidServiceName::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_a_few_characters_and_not_too_long() {
        for name in ["a", "order", "order-2", "0", &"a".repeat(63)] {
            assert_eq!(check_service_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_service_name(""), Err(InvalidServiceName::Empty));
        for name in ["Order", "or der", "order_2", "order.v1", "ordér", &"a".repeat(64)] {
            assert_eq!(check_service_name(name), Err(InvalidServiceName::Malformed), "{name}");
        }
    }
}
