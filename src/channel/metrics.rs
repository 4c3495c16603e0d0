//! What is counted of outgoing calls and of the endpoints that they go to, by OpenTelemetry's conventions for RPC where there
//! are some.
//!
//! | metric | labels beside `service` | meaning |
//! |---|---|---|
//! | `rpc_client_call_duration_seconds` | `rpc_method`, `rpc_response_status_code` | a call, all its attempts, to the headers of its answer |
//! | `meshwork_client_further_attempts_total` | | retries and hedges |
//! | `meshwork_client_queue_wait_seconds` | | calls that found no ready endpoint, and how long they waited |
//! | `meshwork_client_endpoint_state` | `instance`, `state` | 1 for the state that an endpoint is in |
//! | `meshwork_client_endpoint_load`, `_latency_seconds`, `_pending_calls` | `instance` | what the balance goes by |
//! | `meshwork_client_endpoint_calls_total`, `_failures_total`, `_ejections_total` | `instance` | what has happened there |

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Response;
use metrics::{Label, SharedString, counter, gauge, histogram};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::{
    link::Link,
    roster::Roster,
    stats::{EndpointState, EndpointStats},
};
use crate::{balance::Picker, rpc::code_name};

/// How often what is known of the endpoints is told: as often as it is collected, by Prometheus's custom of 15 s, and more.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counts a call whose answer has begun, or failed to.
pub(super) fn answered<B>(
    service: &Arc<str>,
    method: &str,
    begun: Instant,
    further_attempts: u32,
    result: &Result<Response<B>, Status>,
) {
    let code = match result {
        Ok(answer) => {
            answer.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
        }
        Err(status) => status.code(),
    };
    let labels = [
        Label::new("service", service.clone()),
        Label::new("rpc_method", method.to_owned()),
        Label::from_static_parts("rpc_response_status_code", code_name(code)),
    ];
    histogram!("rpc_client_call_duration_seconds", labels.iter()).record(begun.elapsed());
    if further_attempts > 0 {
        counter!("meshwork_client_further_attempts_total", "service" => service.clone())
            .increment(further_attempts.into());
    }
}

/// Counts a call that has waited for an endpoint.
pub(super) fn waited(service: &Arc<str>, time: Duration) {
    histogram!("meshwork_client_queue_wait_seconds", "service" => service.clone()).record(time);
}

/// Tells how the endpoints of a channel stand, again and again.
pub(super) async fn report(service: Arc<str>, picker: Arc<Picker<Link>>, roster: Arc<Roster>) -> Infallible {
    loop {
        sleep(INTERVAL).await;
        roster.stats(picker.statements()).iter().for_each(|endpoint| tell(&service, endpoint));
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
    if let Some(latency) = calls.latency {
        gauge!("meshwork_client_endpoint_latency_seconds", labels.iter()).set(latency.as_secs_f64());
    }
    counter!("meshwork_client_endpoint_calls_total", labels.iter()).absolute(calls.calls);
    counter!("meshwork_client_endpoint_failures_total", labels.iter()).absolute(calls.failures);
    counter!("meshwork_client_endpoint_ejections_total", labels.iter()).absolute(calls.ejections);
}
