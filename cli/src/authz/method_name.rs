//! A method as `meshwork authz check` takes it.

use std::{fmt, str::FromStr};

use meshwork::service_name::check_service_name;

/// A method as it was typed: `SERVICE/PACKAGE.SERVICE/METHOD`, or without one of the first two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName {
    pub(super) whose: Whose,
    pub(super) method: String,
}

/// What is said of whose method it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Both { service: String, grpc_service: String },
    Service(String),
    GrpcService(String),
}

/// A text that names no method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be SERVICE/PACKAGE.SERVICE/METHOD, such as order/shop.order.v1.OrderService/GetOrder, or that without SERVICE or without \
     PACKAGE.SERVICE"
)]
pub struct InvalidMethodName;

impl FromStr for MethodName {
    type Err = InvalidMethodName;

    fn from_str(text: &str) -> Result<Self, InvalidMethodName> {
        let is_service = |name: &str| check_service_name(name).is_ok();
        let (whose, method) = match text.split('/').collect::<Vec<_>>()[..] {
            [service, grpc_service, method] if is_service(service) && is_full_name(grpc_service) => {
                (Whose::Both { service: service.to_owned(), grpc_service: grpc_service.to_owned() }, method)
            }
            // A gRPC service of a package has a dot in its name, and no service of the mesh has.
            [service, method] if is_service(service) => (Whose::Service(service.to_owned()), method),
            [grpc_service, method] if is_full_name(grpc_service) => {
                (Whose::GrpcService(grpc_service.to_owned()), method)
            }
            _ => return Err(InvalidMethodName),
        };
        if is_identifier(method) { Ok(Self { whose, method: method.to_owned() }) } else { Err(InvalidMethodName) }
    }
}

/// As it was typed.
impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whose {
            Whose::Both { service, grpc_service } => write!(f, "{service}/{grpc_service}/{}", self.method),
            Whose::Service(name) | Whose::GrpcService(name) => write!(f, "{name}/{}", self.method),
        }
    }
}

fn is_full_name(name: &str) -> bool {
    name.split('.').all(is_identifier)
}

fn is_identifier(part: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    part.bytes().all(allowed) && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}
