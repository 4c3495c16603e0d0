//! What is counted of outgoing calls and of the endpoints that they go to, by OpenTelemetry's conventions for RPC where there
//! are some.
//!
//! | metric | labels beside `service` | meaning |
//! |---|---|---|
//! | `rpc_client_call_duration_seconds` | `rpc_method`, `rpc_response_status_code` | a call, all its attempts, to the headers of its answer, and the code that it ended with |
//! | `meshwork_client_retries_total` | | attempts after one that failed (gRFC A96's retries) |
//! | `meshwork_client_transparent_retries_total` | | attempts after one that no server had begun to process |
//! | `meshwork_client_hedges_total` | | attempts beside one that is slow |
//! | `meshwork_client_retry_budget_refused_total` | | retries and hedges that were not made, because there was no budget for them |
//! | `meshwork_client_retry_budget` | | how many retries and hedges the budget would pay for at once |
//! | `meshwork_client_queue_wait_seconds` | | calls that found no ready endpoint, and how long they waited |
//! | `meshwork_client_endpoint_state` | `instance`, `state` | 1 for the state that an endpoint is in |
//! | `meshwork_client_endpoint_load`, `_latency_seconds`, `_pending_calls` | `instance` | what the balance goes by |
//! | `meshwork_client_endpoint_stream_limit` | `instance` | how many calls the server allows on the connection |
//! | `meshwork_client_endpoint_calls_total`, `_failures_total`, `_ejections_total` | | what has happened at all endpoints |
//!
//! Instances come and go without end, and a counter stays for ever: so no counter has an instance as label. A gauge of an
//! instance goes when it is not set any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use metrics::{Label, SharedString, counter, histogram};
use parking_lot::RwLock;
use tonic::{Code, GrpcMethod};
use tracing::Span;

use super::{call::AttemptKind, service_config::ServiceConfig};
use crate::{
    rpc::{CallDuration, Timed},
    trace,
};

pub(super) const RETRIES: &str = "meshwork_client_retries_total";
pub(super) const TRANSPARENT_RETRIES: &str = "meshwork_client_transparent_retries_total";
pub(super) const HEDGES: &str = "meshwork_client_hedges_total";
pub(super) const REFUSED_BY_BUDGET: &str = "meshwork_client_retry_budget_refused_total";

/// An undeclared method, as OpenTelemetry calls it: paths that a caller makes up must not become labels.
const OTHER: &str = "_OTHER";

/// The durations of a channel's calls, by method.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    service: Arc<str>,
    methods: RwLock<HashMap<String, Arc<CallDuration>>>,
    other: Arc<CallDuration>,
}

impl CallMetrics {
    pub(super) fn new(service: Arc<str>) -> Self {
        let other = Arc::new(duration(service.clone(), SharedString::const_str(OTHER)));
        Self { service, methods: RwLock::default(), other }
    }

    /// A call that begins, and whose `span` is told how it ends.
    pub(super) fn begin<B>(&self, request: &Request<B>, config: &ServiceConfig, span: Span) -> Observed {
        let duration = if is_declared(request, config) { self.of(request.uri().path()) } else { self.other.clone() };
        Observed { timed: Timed::begin(duration), span }
    }

    fn of(&self, path: &str) -> Arc<CallDuration> {
        if let Some(known) = self.methods.read().get(path) {
            return known.clone();
        }
        let new = || Arc::new(duration(self.service.clone(), path.to_owned().into()));
        self.methods.write().entry(path.to_owned()).or_insert_with(new).clone()
    }
}

fn duration(service: Arc<str>, method: SharedString) -> CallDuration {
    let labels = vec![Label::new("service", service), Label::new("rpc_method", method)];
    CallDuration::new("rpc_client_call_duration_seconds", labels)
}

/// A call that is counted, and whose span is told of its failure, when it ends; as CANCELLED, if its caller gives it up before that.
#[derive(Debug)]
pub(crate) struct Observed {
    timed: Timed,
    span: Span,
}

impl Observed {
    /// The answer has begun, or it is known that none will come.
    pub(crate) fn answered(&mut self) {
        self.timed.answered();
    }

    /// The call has ended.
    pub(crate) fn end(mut self, code: Code) {
        self.timed.ended(code);
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let code = self.timed.code();
        if code != Code::Ok {
            trace::failed(&self.span, code);
        }
    }
}

/// Whether the method is one of a contract: a generated client says so, and so do the endpoints of those that may be sent
/// again.
fn is_declared<B>(request: &Request<B>, config: &ServiceConfig) -> bool {
    let path = request.uri().path();
    let generated = request.extensions().get::<GrpcMethod<'static>>().is_some_and(|generated| {
        path.strip_prefix('/').and_then(|path| path.split_once('/')) == Some((generated.service(), generated.method()))
    });
    generated || config.declares(path)
}

/// Counts an attempt that is sent.
pub(super) fn sent(service: &Arc<str>, kind: AttemptKind) {
    match kind {
        AttemptKind::First => {}
        AttemptKind::Retry => counter!(RETRIES, "service" => service.clone()).increment(1),
        AttemptKind::Hedge => counter!(HEDGES, "service" => service.clone()).increment(1),
    }
}

/// Counts an attempt after one that no server had begun to process.
pub(super) fn transparent_retry(service: &Arc<str>) {
    counter!(TRANSPARENT_RETRIES, "service" => service.clone()).increment(1);
}

/// Counts a retry or a hedge that the budget does not pay for.
pub(super) fn refused_by_budget(service: &Arc<str>) {
    counter!(REFUSED_BY_BUDGET, "service" => service.clone()).increment(1);
}

/// Counts a call that has waited for an endpoint.
pub(super) fn waited(service: &Arc<str>, time: Duration) {
    histogram!("meshwork_client_queue_wait_seconds", "service" => service.clone()).record(time);
}
