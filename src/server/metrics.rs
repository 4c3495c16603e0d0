//! Metrics of calls, by OpenTelemetry's conventions for RPC where they exist.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rpc_server_call_duration_seconds` | `rpc_system_name`, `rpc_method`, `rpc_response_status_code` | unary calls, from headers to answer |
//! | `meshwork_server_refused_total` | `reason` | calls that were refused before they were started |
//! | `meshwork_server_denied_total` | `reason`, `enforced` | calls that the authorization rules do not allow; `enforced="false"`: they were let through, in a dry run |
//!
//! Streams are not timed: their duration says nothing about the server. Nor are undeclared methods: paths that
//! callers invent must not become labels.

use http::Response;
use metrics::Label;

use super::Enforcement;
use crate::{
    authorization::Denial,
    headers::{REFUSED, Refusal},
    rpc::CallDuration,
};

/// The durations of the calls of the method with this path.
pub(super) fn duration(path: &str) -> CallDuration {
    let method = path.trim_start_matches('/').to_owned();
    CallDuration::new("rpc_server_call_duration_seconds", vec![Label::new("rpc_method", method)])
}

/// Counts a refused call, if this answer is a refusal.
pub(super) fn refused<B>(response: &Response<B>) {
    if let Some(refusal) = response.headers().get(REFUSED).and_then(|name| Refusal::parse(name.as_bytes())) {
        metrics::counter!("meshwork_server_refused_total", "reason" => refusal.name()).increment(1);
    }
}

/// Counts a call that the rules do not allow.
pub(super) fn denied(denial: Denial, enforcement: Enforcement) {
    let enforced = match enforcement {
        Enforcement::Enforce => "true",
        Enforcement::Log => "false",
    };
    metrics::counter!("meshwork_server_denied_total", "reason" => denial.name(), "enforced" => enforced).increment(1);
}
