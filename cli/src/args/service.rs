//! The name of a service, as every command takes it.

use meshwork::service_name::{InvalidServiceName, check_service_name};

/// Reads the name of a service: nothing is sent for one that no service can have.
pub(super) fn parse_service(text: &str) -> Result<String, InvalidServiceName> {
    check_service_name(text).map(|()| text.to_owned())
}
