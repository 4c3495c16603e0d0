//! What a server reports about its calls.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{probe::unary, *};
use crate::health::{Condition, Conditioner};

const UNARY: &str = "/meshwork.registry.v1.RegistryService/Deregister";

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

#[track_caller]
fn assert_told(recorder: &PrometheusRecorder, expected: &str) {
    let told = recorder.handle().render();
    assert!(told.lines().any(|told| told == expected), "{expected}\nis not in\n{told}");
}

fn calls(code: &str) -> String {
    let method = UNARY.trim_start_matches('/');
    let labels = format!(r#"rpc_system_name="grpc",rpc_method="{method}",rpc_response_status_code="{code}""#);
    format!("rpc_server_call_duration_seconds_count{{{labels}}} 1")
}

/// Sends nothing at all, and reads how that is answered.
async fn post(connection: &mut Connection, path: &str, content_type: &str) {
    let request = http::Request::post(format!("http://probe{path}")).header("content-type", content_type);
    let response = connection.call(request.body(Body::empty()).expect("a request")).await.expect("an answer");
    http_body_util::BodyExt::collect(response.into_body()).await.expect("a whole answer");
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_is_counted_with_the_code_that_it_ends_with() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    let mut client = client(connection.clone());

    client.deregister(unary("")).await.expect("served");
    assert_told(&recorder, &calls("OK"));
    client.deregister(unary("deadline")).await.expect_err("as told");
    assert_told(&recorder, &calls("FAILED_PRECONDITION"));
    client.deregister(unary("panic")).await.expect_err("as told");
    assert_told(&recorder, &calls("INTERNAL"));
    client.deregister(with_header(unary("wait"), "grpc-timeout", "1m")).await.expect_err("cut");
    assert_told(&recorder, &calls("DEADLINE_EXCEEDED"));
    post(&mut connection, UNARY, "text/html").await;
    assert_told(&recorder, &calls("UNKNOWN"));
    post(&mut connection, UNARY, "application/grpc").await;
    assert_told(&recorder, &calls("UNIMPLEMENTED"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gives_up_is_counted_as_cancelled() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    tokio::select! {
        _ = client.deregister(unary("wait")) => unreachable!("nothing releases it"),
        () = running.probe.until(|seen| seen.started == 1) => {}
    }
    running.probe.until(|seen| seen.alive == 0).await;
    assert_told(&recorder, &calls("CANCELLED"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_turned_away_is_counted_by_its_reason_and_made_up_methods_are_no_labels() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    let refused = client(connection.clone()).deregister(with_header(unary(""), "meshwork-instance", "probe-0")).await;
    refused.expect_err("refused");
    assert_told(&recorder, r#"meshwork_server_refused_total{reason="wrong-instance"} 1"#);
    assert_told(&recorder, &calls("UNAVAILABLE"));
    post(&mut connection, "/meshwork.registry.v1.RegistryService/MadeUp", "application/grpc").await;
    assert!(!recorder.handle().render().contains("MadeUp"));
}

#[tokio::test(start_paused = true)]
async fn each_name_of_its_health_is_a_metric() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let [store, events] = [Conditioner::default(), Conditioner::default()];
    let mut serving = Condition::default();
    let running = run(config(), |server| {
        serving = server.serving();
        server.depends_on(store.condition()).reports("events/order", events.condition())
    });
    let told_to = |recorder: &PrometheusRecorder, name: &str, well: u8| {
        let labels = format!(r#"service="probe",instance="probe-1",name="{name}""#);
        assert_told(recorder, &format!("meshwork_health_serving{{{labels}}} {well}"));
    };
    let told = |name: &str, well: u8| told_to(&recorder, name, well);
    let names = ["", "meshwork.registry.v1.RegistryService", "events/order"];
    running.client().await.deregister(unary("")).await.expect("it serves");
    names.iter().for_each(|name| told(name, 1));

    events.set(Err("an event cannot be decoded".into()));
    store.set(Err("the disk is full".into()));
    serving.until_problem().await;
    tokio::task::yield_now().await;
    names.iter().for_each(|name| told(name, 0));

    // Exporters drop a gauge that is not set again.
    let later = self::recorder();
    let _counting = ::metrics::set_default_local_recorder(&later);
    tokio::time::sleep(Duration::from_secs(30)).await;
    names.iter().for_each(|name| told_to(&later, name, 0));
    running.stop().await.expect("it left");
}
