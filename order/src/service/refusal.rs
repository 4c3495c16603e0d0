//! Refusals as statuses.

use tonic::{Code, Status};

use crate::{domain::Refusal, names::DOMAIN};

/// The one mapping from this service's refusals to what callers see.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::UnknownOrder(_) => DOMAIN.error(Code::NotFound, "UNKNOWN_ORDER", message),
        Refusal::OrderRejected(_) => DOMAIN.error(Code::FailedPrecondition, "ORDER_REJECTED", message),
        Refusal::RequestIdReused(_) => DOMAIN.invalid_field("REQUEST_ID_REUSED", "request_id", &message),
    }
}
