//! What is counted of outgoing calls and of the endpoints that they go to, by OpenTelemetry's conventions for RPC where there
//! are some.
//!
//! | metric | labels beside `service` | meaning |
//! |---|---|---|
//! | `rpc_client_call_duration_seconds` | `rpc_method`, `rpc_response_status_code` | a call, all its attempts, to the headers of its answer, and the code that it ended with |
//! | `meshwork_client_further_attempts_total` | | retries and hedges |
//! | `meshwork_client_further_attempts_refused_total` | | those that were not made, because there was no budget for them |
//! | `meshwork_client_further_attempts_credit` | | how many the budget would pay for at once |
//! | `meshwork_client_queue_wait_seconds` | | calls that found no ready endpoint, and how long they waited |
//! | `meshwork_client_endpoint_state` | `instance`, `state` | 1 for the state that an endpoint is in |
//! | `meshwork_client_endpoint_load`, `_latency_seconds`, `_pending_calls` | `instance` | what the balance goes by |
//! | `meshwork_client_endpoint_stream_limit` | `instance` | how many calls the server allows on the connection |
//! | `meshwork_client_endpoint_calls_total`, `_failures_total`, `_ejections_total` | | what has happened at all endpoints |
//!
//! Instances come and go without end, and a counter stays for ever: so none is an instance's. A gauge of an instance goes
//! when nobody sets it any more.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use metrics::{Label, SharedString, counter, gauge, histogram};
use tokio::time::{Instant, sleep};
use tonic::{Code, GrpcMethod};
use tracing::Span;

use super::{layers::budget::Budget, link::Link, roster::Roster, service_config::Rules};
use crate::{
    balance::{Key, Picker},
    endpoint::stats::{CallStats, EndpointState, EndpointStats},
    rpc::code_name,
    trace,
};

/// How often what is known of the endpoints is told: as often as it is collected, by Prometheus's custom of 15 s, and more.
const INTERVAL: Duration = Duration::from_secs(5);
/// A method that nobody declares, as OpenTelemetry calls it: paths that somebody makes up must not become labels.
const OTHER: &str = "_OTHER";

/// A call that is counted when it ends; as CANCELLED, if its caller gives it up before that.
#[derive(Debug)]
pub(crate) struct Timed {
    service: Arc<str>,
    method: SharedString,
    span: Span,
    begun: Instant,
    /// How long its answer took to begin.
    took: Option<Duration>,
    code: Code,
}

impl Timed {
    /// A call that begins, and whose `span` is told how it ends.
    pub(super) fn begin<B>(service: Arc<str>, request: &Request<B>, rules: &Rules, span: Span) -> Self {
        let path = request.uri().path();
        let method = if is_declared(request, rules) { path.to_owned().into() } else { SharedString::const_str(OTHER) };
        Self { service, method, span, begun: Instant::now(), took: None, code: Code::Cancelled }
    }

    /// The answer has begun, or it is known that none will come.
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
            Label::new("service", self.service.clone()),
            Label::new("rpc_method", self.method.clone()),
            Label::from_static_parts("rpc_response_status_code", code_name(self.code)),
        ];
        let took = self.took.unwrap_or_else(|| self.begun.elapsed());
        histogram!("rpc_client_call_duration_seconds", labels.iter()).record(took);
        if self.code != Code::Ok {
            trace::failed(&self.span, self.code);
        }
    }
}

/// Whether the method is one of a contract: a generated client says so, and so do the endpoints of those that may be sent
/// again.
fn is_declared<B>(request: &Request<B>, rules: &Rules) -> bool {
    let path = request.uri().path();
    let generated = request.extensions().get::<GrpcMethod<'static>>().is_some_and(|generated| {
        path.strip_prefix('/').and_then(|path| path.split_once('/')) == Some((generated.service(), generated.method()))
    });
    generated || rules.declares(path)
}

/// Counts a retry or a hedge.
pub(super) fn further_attempt(service: &Arc<str>) {
    counter!("meshwork_client_further_attempts_total", "service" => service.clone()).increment(1);
}

/// Counts a retry or a hedge that the budget does not pay for.
pub(super) fn further_attempt_refused(service: &Arc<str>) {
    counter!("meshwork_client_further_attempts_refused_total", "service" => service.clone()).increment(1);
}

/// Counts a call that has waited for an endpoint.
pub(super) fn waited(service: &Arc<str>, time: Duration) {
    histogram!("meshwork_client_queue_wait_seconds", "service" => service.clone()).record(time);
}

/// Tells how a channel and its endpoints stand.
pub(super) struct Report {
    pub(super) service: Arc<str>,
    pub(super) picker: Arc<Picker<Link>>,
    pub(super) roster: Arc<Roster>,
    pub(super) rules: Arc<Rules>,
    pub(super) budget: Arc<Budget>,
}

impl Report {
    /// Tells it again and again. What an endpoint did in its last [`INTERVAL`] before it left is not told.
    pub(super) async fn run(self) -> Infallible {
        // So that they are there before anything has happened.
        for counter in ["meshwork_client_further_attempts_total", "meshwork_client_further_attempts_refused_total"] {
            counter!(counter, "service" => self.service.clone()).increment(0);
        }
        let mut told = HashMap::new();
        loop {
            sleep(INTERVAL).await;
            gauge!("meshwork_client_further_attempts_credit", "service" => self.service.clone())
                .set(self.budget.left(&self.rules.policy().retry));
            let endpoints = self.roster.stats(self.picker.statements());
            endpoints.iter().for_each(|(_, endpoint)| tell(&self.service, endpoint));
            told = self.count(&told, endpoints.iter().map(|(key, endpoint)| (*key, endpoint.calls)));
        }
    }

    /// Counts what has happened since it was `told`, and returns what is told now.
    fn count(
        &self,
        told: &HashMap<Key, CallStats>,
        now: impl Iterator<Item = (Key, CallStats)>,
    ) -> HashMap<Key, CallStats> {
        let now: HashMap<_, _> = now.collect();
        let happened =
            |of: fn(&CallStats) -> u64| now.iter().map(|(key, calls)| of(calls) - told.get(key).map_or(0, of)).sum();
        let service = || self.service.clone();
        counter!("meshwork_client_endpoint_calls_total", "service" => service()).increment(happened(|at| at.calls));
        counter!("meshwork_client_endpoint_failures_total", "service" => service())
            .increment(happened(|at| at.failures));
        counter!("meshwork_client_endpoint_ejections_total", "service" => service())
            .increment(happened(|at| at.ejections));
        now
    }
}

fn tell(service: &Arc<str>, endpoint: &EndpointStats) {
    let instance = if endpoint.instance_id.is_empty() { &endpoint.address } else { &endpoint.instance_id };
    let instance: SharedString = Arc::<str>::from(instance.as_str()).into();
    let labels = [Label::new("service", service.clone()), Label::new("instance", instance)];
    let calls = &endpoint.calls;
    for state in EndpointState::NAMES {
        let labels = labels.iter().cloned().chain([Label::from_static_parts("state", state)]).collect::<Vec<_>>();
        let holds = state == endpoint.state.name();
        gauge!("meshwork_client_endpoint_state", labels.iter()).set(if holds { 1.0 } else { 0.0 });
    }
    gauge!("meshwork_client_endpoint_load", labels.iter()).set(calls.load);
    gauge!("meshwork_client_endpoint_pending_calls", labels.iter()).set(calls.pending);
    if let Some(limit) = endpoint.stream_limit {
        gauge!("meshwork_client_endpoint_stream_limit", labels.iter()).set(limit);
    }
    if let Some(latency) = calls.latency {
        gauge!("meshwork_client_endpoint_latency_seconds", labels.iter()).set(latency.as_secs_f64());
    }
}
