//! The names of services in the mesh.

const MAX_LEN: usize = 63;

/// Whether this can be the name of a service.
pub(crate) fn service_name(name: &str) -> Result<(), &'static str> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match name.len() {
        0 => Err("is required"),
        1..=MAX_LEN if name.bytes().all(allowed) => Ok(()),
        _ => Err("must be 1-63 characters of [a-z0-9-]"),
    }
}
