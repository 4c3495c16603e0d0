//! `meshwork instances SERVICE --stats`: how the instances look to a client, which this command is for a moment.
//!
//! It connects to every instance that a client here would use, asks each how it is (grpc.health.v1) as any call would be
//! balanced, and shows what the channel has learnt: state, latency, load, failures.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use meshwork::{
    channel::{Channel, EndpointState, EndpointStats},
    contract::{
        grpc::health::v1::{HealthCheckRequest, health_client::HealthClient},
        meshwork::registry::v1::{Instance, InstanceStatus},
    },
};
use meshwork_registry::ProtobufJson;
use prost_types::Timestamp;
use tokio::time::{self, sleep};

use crate::{
    args::{InstancesArgs, mesh_of},
    directory::{Directory, or_dash},
    error::Error,
    table::{Align, Output, Table, printable},
};

/// Until every instance is connected, or said to be unreachable: a little more than a connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(2500);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Calls for each instance: enough for the balance to reach all of them.
const CALLS: usize = 16;
/// For all calls together: an instance that is silent must not hold up the table that says so.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Shows how a service's instances look from here.
pub(crate) async fn run(args: &InstancesArgs) -> Result<(), Error> {
    let registries = &args.source.registry;
    let mesh = mesh_of(registries, &args.source.tls, |mesh| mesh.subset_size(0))?;
    // Says so if there is no such registry or service.
    let instances = Directory::new(&mesh, registries).instances(&args.service).await?;
    let known = instances.iter().filter(|instance| instance.status() == InstanceStatus::Serving).count();
    let channel = mesh.channel(&args.service);
    connected(&channel, known).await;
    let calls = (0..CALLS * known).map(|_| check(channel.clone()));
    let _ = time::timeout(CALL_LIMIT, futures_util::future::join_all(calls)).await;
    let endpoints = channel.endpoints();
    mesh.close().await;

    let mut out = io::stdout().lock();
    if args.source.json {
        let instances = endpoints.iter().map(|endpoint| json(&args.service, &instances, endpoint)).collect::<Vec<_>>();
        writeln!(out, "{}", serde_json::json!({ "instances": instances }))?;
    } else {
        write!(out, "{}", table(&endpoints, SystemTime::now(), Output::stdout()))?;
    }
    Ok(())
}

/// Waits until it is known of every endpoint whether it can be reached.
async fn connected(channel: &Channel, known: usize) {
    let until = time::Instant::now() + CONNECT_LIMIT;
    let open = |endpoint: &EndpointStats| endpoint.state == EndpointState::Connecting;
    while time::Instant::now() < until {
        let endpoints = channel.endpoints();
        if endpoints.len() >= known && !endpoints.iter().any(open) {
            return;
        }
        sleep(POLL).await;
    }
}

async fn check(channel: Channel) {
    // What comes of it is in the channel's own account.
    let _ = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
}

fn table(endpoints: &[EndpointStats], now: SystemTime, output: Output) -> Table<9> {
    let (left, right) = (|title| (title, Align::Left), |title| (title, Align::Right));
    let mut table = Table::new([
        left("INSTANCE"),
        left("ADDRESS"),
        left("STATE"),
        left("ZONE"),
        right("LATENCY"),
        right("LOAD"),
        right("CALLS"),
        right("FAILED"),
        right("CERTIFICATE"),
    ])
    .on(output);
    for endpoint in endpoints {
        let calls = &endpoint.calls;
        table.row([
            output.id(&endpoint.instance_id),
            printable(&endpoint.address),
            endpoint.state.name().to_owned(),
            or_dash(&endpoint.zone),
            calls.latency.map_or_else(|| "-".to_owned(), |latency| format!("{:.2} ms", latency.as_secs_f64() * 1e3)),
            format!("{:.2} ms", calls.load * 1e3),
            calls.calls.to_string(),
            calls.failures.to_string(),
            endpoint.certificate_expires.map_or_else(|| "-".to_owned(), |expires| time_left(expires, now)),
        ]);
    }
    table
}

/// What is left of a certificate's life, in its two largest units.
fn time_left(expires: SystemTime, now: SystemTime) -> String {
    let Ok(left) = expires.duration_since(now) else { return "expired".to_owned() };
    let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// What `instances --json` has too, in its own form and as the registry says it, and beside it what only a client knows.
fn json(service: &str, registered: &[Instance], endpoint: &EndpointStats) -> serde_json::Value {
    let EndpointStats { instance_id, address, version, zone, weight, state, calls, .. } = endpoint;
    let registered = registered.iter().find(|instance| instance.instance_id == *instance_id).cloned();
    // One that has come since says of itself what its endpoint does.
    let mut value = in_registry_form(&registered.unwrap_or_else(|| Instance {
        service: service.to_owned(),
        instance_id: instance_id.clone(),
        address: address.clone(),
        version: version.clone(),
        zone: zone.clone(),
        weight: *weight,
        ..Instance::default()
    }));
    let why = match state {
        EndpointState::TransientFailure { why } => Some(why),
        EndpointState::Connecting | EndpointState::Ready | EndpointState::Ejected { .. } | EndpointState::Probation => {
            None
        }
    };
    let expires = endpoint.certificate_expires.map(|time| Timestamp::from(time).to_string());
    value["certificateExpireTime"] = serde_json::json!(expires);
    value["state"] = state.name().into();
    value["why"] = serde_json::json!(why);
    value["loadSeconds"] = calls.load.into();
    value["latencySeconds"] = serde_json::json!(calls.latency.map(|latency| latency.as_secs_f64()));
    value["pending"] = calls.pending.into();
    value["calls"] = calls.calls.into();
    value["failures"] = calls.failures.into();
    value["ejections"] = calls.ejections.into();
    value
}

fn in_registry_form(instance: &Instance) -> serde_json::Value {
    serde_json::from_str(&ProtobufJson::new().line(instance)).expect("protobuf JSON is JSON")
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::ListInstancesResponse;

    use super::*;

    #[test]
    fn what_is_left_of_a_certificate_is_told_in_two_units() {
        let now = SystemTime::now();
        for (seconds, expected) in [(59, "0m 59s"), (3600 + 120, "1h 2m"), (86_400 * 3 + 7200, "3d 2h")] {
            assert_eq!(time_left(now + Duration::from_secs(seconds), now), expected);
        }
        assert_eq!(time_left(now - Duration::from_secs(1), now), "expired");
    }

    #[test]
    fn what_both_kinds_of_json_have_is_called_the_same() {
        let instance = Instance { instance_id: "a".into(), zone: "z".into(), weight: 5, ..Instance::default() };
        let listed = ListInstancesResponse { instances: vec![instance.clone()], next_page_token: String::new() };
        let listed: serde_json::Value = serde_json::from_str(&ProtobufJson::new().line(&listed)).expect("JSON");
        assert_eq!(in_registry_form(&instance), listed["instances"][0]);
        assert_eq!(listed["instances"][0]["instanceId"], "a");
    }
}
