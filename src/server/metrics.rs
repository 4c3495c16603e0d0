//! What is counted of calls, by OpenTelemetry's conventions for RPC where there are some.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rpc_server_call_duration_seconds` | `rpc_method`, `rpc_response_status_code` | unary calls, from headers to answer |
//! | `meshwork_server_refused_total` | `reason` | calls that were turned away before they were started |
//!
//! Streams are not timed: how long one lives says nothing about the server. Nor is what no descriptor declares: paths that
//! callers invent must not become labels.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    headers::{REFUSED, Refusal},
    rpc::code_name,
};

/// A unary call that is counted when it ends; as CANCELLED, if its caller gives it up before that.
#[derive(Debug)]
pub(super) struct Timed {
    method: Arc<str>,
    begun: Instant,
    /// How long its answer took to be ready.
    took: Option<Duration>,
    code: Code,
}

impl Timed {
    /// A call of `method` that begins now.
    pub(super) fn begin(method: Arc<str>) -> Self {
        Self { method, begun: Instant::now(), took: None, code: Code::Cancelled }
    }

    /// The answer is ready.
    pub(super) fn answered(&mut self) {
        self.took = Some(self.begun.elapsed());
    }

    /// The call has ended.
    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let labels = [
            metrics::Label::new("rpc_method", metrics::SharedString::from_shared(self.method.clone())),
            metrics::Label::from_static_parts("rpc_response_status_code", code_name(self.code)),
        ];
        let took = self.took.unwrap_or_else(|| self.begun.elapsed());
        metrics::histogram!("rpc_server_call_duration_seconds", labels.iter()).record(took);
    }
}

/// Counts a call that was turned away, if this answer says so.
pub(super) fn refused<B>(response: &Response<B>) {
    if let Some(refusal) = response.headers().get(REFUSED).and_then(|name| Refusal::parse(name.as_bytes())) {
        metrics::counter!("meshwork_server_refused_total", "reason" => refusal.name()).increment(1);
    }
}
