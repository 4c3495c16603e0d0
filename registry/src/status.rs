//! The registry's errors as callers see them: the one mapping to statuses.

use meshwork::rpc::Domain;
use tonic::{Code, Status};

use crate::{
    access::NotAllowed,
    backend::BackendError,
    policies::{Kind, PolicyError},
    table::NotAdmitted,
};

/// The domain of this service's errors.
pub const DOMAIN: Domain = Domain::new("registry.meshwork");

const NOT_ALLOWED: &str = "NOT_ALLOWED";

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn status(error: BackendError) -> Status {
    let (code, reason) = match &error {
        BackendError::Policy(error) => policy_error(*error),
        BackendError::NotAdmitted(NotAdmitted::Full(_)) => (Code::ResourceExhausted, "REGISTRY_FULL"),
        BackendError::NotAdmitted(NotAdmitted::OtherStore(_)) => (Code::FailedPrecondition, "STORE_CONFLICT"),
        BackendError::NotAdmitted(NotAdmitted::Held(_)) => (Code::PermissionDenied, NOT_ALLOWED),
        BackendError::TooManyWatches => (Code::ResourceExhausted, "TOO_MANY_WATCHES"),
        BackendError::UnknownLease => (Code::NotFound, "UNKNOWN_LEASE"),
        BackendError::UnknownService => (Code::NotFound, "UNKNOWN_SERVICE"),
        BackendError::UnknownStore => (Code::NotFound, "UNKNOWN_STORE"),
    };
    DOMAIN.error(code, reason, error.to_string())
}

fn policy_error(error: PolicyError) -> (Code, &'static str) {
    match error {
        PolicyError::Changed(_) => (Code::Aborted, "ETAG_MISMATCH"),
        PolicyError::TooMany(Kind::Policy) | PolicyError::TooLarge(Kind::Policy) => {
            (Code::ResourceExhausted, "TOO_MANY_POLICIES")
        }
        PolicyError::TooMany(_) | PolicyError::TooLarge(_) | PolicyError::TooManyTaken => {
            (Code::ResourceExhausted, "REGISTRY_FULL")
        }
        PolicyError::NotStored(Kind::Policy) => (Code::Unavailable, "POLICY_NOT_STORED"),
        PolicyError::NotStored(_) => (Code::Unavailable, "NOT_STORED"),
    }
}

/// The status of a caller that may not do what it asks for.
pub(crate) fn not_allowed(refusal: &NotAllowed) -> Status {
    DOMAIN.error(Code::PermissionDenied, NOT_ALLOWED, refusal.to_string())
}
