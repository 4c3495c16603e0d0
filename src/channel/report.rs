//! Tells in metrics how a channel and its endpoints stand, again and again. The names are listed in `metrics`.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use metrics::{Label, SharedString, counter, gauge};
use tokio::time::{Instant, sleep};

use super::{layers::budget::Budget, metrics::REFUSED_BY_BUDGET, service_config::ServiceConfig};
use crate::{
    balance::Picker,
    endpoint::stats::{CallStats, EndpointState, EndpointStats},
};

/// How often the gauges of the endpoints are set: more often than they are collected, by Prometheus's custom each 15 s.
const INTERVAL: Duration = Duration::from_secs(5);
/// Tells how a channel and its endpoints stand.
pub(super) struct Report {
    pub(super) service: Arc<str>,
    pub(super) picker: Arc<Picker>,
    pub(super) config: Arc<ServiceConfig>,
    pub(super) budget: Arc<Budget>,
}

impl Report {
    /// Reports periodically. What an endpoint did in the last [`INTERVAL`] before it left is not reported.
    pub(super) async fn run(self) -> Infallible {
        // So that it is there before anything has happened.
        counter!(REFUSED_BY_BUDGET, "service" => self.service.clone()).increment(0);
        let mut told = HashMap::new();
        loop {
            sleep(INTERVAL).await;
            gauge!("meshwork_client_retry_budget", "service" => self.service.clone())
                .set(self.budget.left(&self.config.policy().retry));
            let now = Instant::now();
            let endpoints: Vec<_> =
                self.picker.endpoints().iter().map(|endpoint| (endpoint.id(), endpoint.stats(now))).collect();
            endpoints.iter().for_each(|(_, endpoint)| tell(&self.service, endpoint));
            told = self.count(&told, endpoints.iter().map(|(id, endpoint)| (*id, endpoint.calls)));
        }
    }

    /// Counts what has happened since the values in `told`, and returns the values now.
    fn count(
        &self,
        told: &HashMap<u64, CallStats>,
        now: impl Iterator<Item = (u64, CallStats)>,
    ) -> HashMap<u64, CallStats> {
        let now: HashMap<_, _> = now.collect();
        let happened = |of: fn(&CallStats) -> u64| {
            now.iter().map(|(id, calls)| of(calls).saturating_sub(told.get(id).map_or(0, of))).sum()
        };
        let service = || self.service.clone();
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
