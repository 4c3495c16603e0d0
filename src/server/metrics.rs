//! What is counted of calls, by OpenTelemetry's conventions for RPC where there are some.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rpc_server_call_duration_seconds` | `rpc_method`, `rpc_response_status_code` | unary calls, from headers to answer |
//! | `meshwork_server_refused_total` | `reason` | calls that were turned away before they were started |
//!
//! Streams are not timed: how long one lives says nothing about the server.

use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use super::methods::Flow;
use crate::{
    headers::{REFUSED, Refusal},
    rpc::code_name,
};

/// A method that no descriptor declares, as OpenTelemetry calls it: paths that callers invent must not become labels.
const OTHER: &str = "_OTHER";

/// Counts a call that has been answered.
pub(super) fn answered<B>(method: Option<Arc<str>>, flow: Flow, begun: Instant, response: &Response<B>) {
    if let Some(refusal) = response.headers().get(REFUSED).and_then(|name| Refusal::parse(name.as_bytes())) {
        metrics::counter!("meshwork_server_refused_total", "reason" => refusal.name()).increment(1);
    }
    match flow {
        Flow::Unary => {
            let code = response.headers().get(tonic::Status::GRPC_STATUS);
            let code = code.map_or(tonic::Code::Ok, |code| tonic::Code::from_bytes(code.as_bytes()));
            let method = method.map_or(metrics::SharedString::const_str(OTHER), metrics::SharedString::from_shared);
            let labels = [
                metrics::Label::new("rpc_method", method),
                metrics::Label::from_static_parts("rpc_response_status_code", code_name(code)),
            ];
            metrics::histogram!("rpc_server_call_duration_seconds", labels.iter()).record(begun.elapsed());
        }
        Flow::ServerStreaming | Flow::ClientStreaming => {}
    }
}
