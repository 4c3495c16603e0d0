//! What is counted of outgoing calls and of the endpoints that they go to: by the names and labels of OpenTelemetry's conventions
//! for RPC and of gRPC (gRFC A66, A96) where they have one for the same thing, in Prometheus's spelling.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rpc_client_call_duration_seconds` | `rpc_system_name`, `rpc_method`, `server_address`, `rpc_response_status_code` | a call, all its attempts, to the headers of its answer, and the code that it ended with |
//! | `grpc_client_attempt_started_total` | `grpc_method`, `grpc_target` | attempts that were sent to an endpoint |
//! | `grpc_client_call_retries` | `grpc_method`, `grpc_target` | of calls with any: attempts after one that failed |
//! | `grpc_client_call_transparent_retries` | `grpc_method`, `grpc_target` | of calls with any: attempts after one that no server had begun to process |
//! | `grpc_client_call_hedges` | `grpc_method`, `grpc_target` | of calls with any: attempts beside one that is slow |
//!
//! `server_address` and `grpc_target` are the service's name. The others are ours, and have the label `service` for it:
//!
//! | metric | labels beside `service` | meaning |
//! |---|---|---|
//! | `meshwork_client_retry_budget_refused_total` | | retries and hedges that were not made, because there was no budget for them |
//! | `meshwork_client_retry_budget` | | how many retries and hedges the budget would pay for at once |
//! | `meshwork_client_queue_wait_seconds` | | calls that found no ready endpoint, and how long they waited |
//! | `meshwork_client_endpoint_state` | `instance`, `state` | 1 for the state that an endpoint is in |
//! | `meshwork_client_endpoint_load`, `_latency_seconds`, `_pending_calls` | `instance` | what the balance goes by |
//! | `meshwork_client_endpoint_stream_limit` | `instance` | how many calls the server allows on the connection |
//! | `meshwork_client_endpoint_failures_total` | | attempts that failed, and that an endpoint is to blame for |
//! | `meshwork_client_endpoint_ejections_total` | | ejections, also those that a panic overrules (gRFC A91 tells the two apart) |
//!
//! Instances come and go without end, and a counter stays for ever: so no counter has an instance as label. A gauge of an
//! instance goes when it is not set any more.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::Request;
use metrics::{Counter, Label, SharedString, counter, histogram};
use parking_lot::RwLock;
use tonic::{Code, GrpcMethod};
use tracing::Span;

use super::service_config::ServiceConfig;
use crate::{
    rpc::{CallDuration, Timed},
    trace,
};

pub(super) const REFUSED_BY_BUDGET: &str = "meshwork_client_retry_budget_refused_total";

/// An undeclared method, as OpenTelemetry and gRPC call it: paths that a caller makes up must not become labels.
const OTHER: (&str, &str) = ("_OTHER", "other");

/// What is counted of a channel's calls, by method.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    service: Arc<str>,
    methods: RwLock<HashMap<String, Arc<MethodMetrics>>>,
    other: Arc<MethodMetrics>,
}

impl CallMetrics {
    pub(super) fn new(service: Arc<str>) -> Self {
        let (rpc, grpc) = OTHER;
        let other = MethodMetrics::new(&service, SharedString::const_str(rpc), SharedString::const_str(grpc));
        Self { service, methods: RwLock::default(), other }
    }

    /// A call that begins, whose end is recorded in `span`; and the count of its attempts.
    pub(super) fn begin<B>(
        &self,
        request: &Request<B>,
        config: &ServiceConfig,
        span: Span,
    ) -> (Observed, AttemptCounts) {
        let method = if is_declared(request, config) { self.of(request.uri().path()) } else { self.other.clone() };
        let observed = Observed { timed: Timed::begin(method.duration.clone()), span };
        (observed, AttemptCounts::new(method))
    }

    fn of(&self, path: &str) -> Arc<MethodMetrics> {
        if let Some(known) = self.methods.read().get(path) {
            return known.clone();
        }
        let method: Arc<str> = path.trim_start_matches('/').into();
        let new = || MethodMetrics::new(&self.service, method.clone().into(), method.clone().into());
        self.methods.write().entry(path.to_owned()).or_insert_with(new).clone()
    }
}

/// What is counted of the calls of a method.
#[derive(Debug)]
struct MethodMetrics {
    duration: Arc<CallDuration>,
    attempts: OnceLock<Counter>,
    /// By gRPC's conventions: method and target.
    labels: Vec<Label>,
}

impl MethodMetrics {
    /// Of a method that is called so by OpenTelemetry and by gRPC.
    fn new(service: &Arc<str>, rpc: SharedString, grpc: SharedString) -> Arc<Self> {
        let labels = vec![Label::new("rpc_method", rpc), Label::new("server_address", service.clone())];
        let duration = Arc::new(CallDuration::new("rpc_client_call_duration_seconds", labels));
        let labels = vec![Label::new("grpc_method", grpc), Label::new("grpc_target", service.clone())];
        Arc::new(Self { duration, attempts: OnceLock::new(), labels })
    }

    fn attempt_started(&self) {
        // Looked up once, as the durations are.
        self.attempts.get_or_init(|| counter!("grpc_client_attempt_started_total", self.labels.iter())).increment(1);
    }
}

/// Counts the attempts at a call that are sent, and records when it is dropped how many of them were not the first.
#[derive(Debug)]
pub(crate) struct AttemptCounts {
    method: Arc<MethodMetrics>,
    retries: AtomicU32,
    transparent_retries: AtomicU32,
    hedges: AtomicU32,
}

impl AttemptCounts {
    fn new(method: Arc<MethodMetrics>) -> Self {
        Self { method, retries: 0.into(), transparent_retries: 0.into(), hedges: 0.into() }
    }

    /// The first attempt is sent.
    pub(super) fn first(&self) {
        self.method.attempt_started();
    }

    /// An attempt is sent after one that failed.
    pub(super) fn retry(&self) {
        self.another(&self.retries);
    }

    /// An attempt is sent after one that no server had begun to process.
    pub(super) fn transparent_retry(&self) {
        self.another(&self.transparent_retries);
    }

    /// An attempt is sent beside one that is slow.
    pub(super) fn hedge(&self) {
        self.another(&self.hedges);
    }

    fn another(&self, count: &AtomicU32) {
        self.method.attempt_started();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for AttemptCounts {
    fn drop(&mut self) {
        let counts = [
            ("grpc_client_call_retries", &mut self.retries),
            ("grpc_client_call_transparent_retries", &mut self.transparent_retries),
            ("grpc_client_call_hedges", &mut self.hedges),
        ];
        for (name, count) in counts {
            let count = *count.get_mut();
            if count > 0 {
                histogram!(name, self.method.labels.iter()).record(count);
            }
        }
    }
}

/// A call that is counted when it ends, with its failure recorded in its span; as CANCELLED if its caller gives up before that.
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

/// Whether the method is one of a contract: a generated client says so, as do the endpoints for those that may be sent
/// again.
fn is_declared<B>(request: &Request<B>, config: &ServiceConfig) -> bool {
    let path = request.uri().path();
    let generated = request.extensions().get::<GrpcMethod<'static>>().is_some_and(|generated| {
        path.strip_prefix('/').and_then(|path| path.split_once('/')) == Some((generated.service(), generated.method()))
    });
    generated || config.declares(path)
}

/// Counts a retry or a hedge that the budget does not pay for.
pub(super) fn refused_by_budget(service: &Arc<str>) {
    counter!(REFUSED_BY_BUDGET, "service" => service.clone()).increment(1);
}

/// Counts a call that has waited for an endpoint.
pub(super) fn waited(service: &Arc<str>, time: Duration) {
    histogram!("meshwork_client_queue_wait_seconds", "service" => service.clone()).record(time);
}
