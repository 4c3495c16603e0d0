//! What a channel reports about itself: metrics, and the fields of a call's span.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tonic::GrpcMethod;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer, layer::SubscriberExt as _, registry};

use super::{
    scripted::{GO_ON, Scripted, begin, end, message, set_policy, unavailable, until_known},
    *,
};

/// Long enough for the channel to report its state twice: what it repeats must not be counted twice.
const TOLD: Duration = Duration::from_secs(11);

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

#[track_caller]
fn assert_told(recorder: &PrometheusRecorder, expected: &[&str]) {
    let told = recorder.handle().render();
    for line in expected {
        assert!(told.lines().any(|told| told == *line), "{line}\nis not in\n{told}");
    }
}

fn calls(method: &str, code: &str, count: usize) -> String {
    let method = method.trim_start_matches('/');
    let call = format!(r#"rpc_system_name="grpc",rpc_method="{method}",server_address="echo""#);
    let labels = format!(r#"{call},rpc_response_status_code="{code}""#);
    format!("rpc_client_call_duration_seconds_count{{{labels}}} {count}")
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_with_the_code_that_it_ends_with_wherever_that_is_said() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let answers: [(fn(&mut scripted::Respond), Code); 4] = [
        (
            |respond| {
                let mut body = begin(respond);
                message(&mut body);
                end(&mut body, Code::Ok);
            },
            Code::Ok,
        ),
        (|respond| end(&mut begin(respond), Code::NotFound), Code::NotFound),
        (
            |respond| {
                let _ = scripted::fail(respond, Code::Aborted, None);
            },
            Code::Aborted,
        ),
        (
            |respond| {
                let response = http::Response::builder().status(502).body(()).expect("a response");
                respond.send_response(response, true).expect("the call is there");
            },
            Code::Unavailable,
        ),
    ];
    for (answer, code) in answers {
        let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
        servers.serve(&bench, "a", move |respond| {
            answer(respond);
            GO_ON
        });
        let answer = bench.ask(net::WHO).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code);
        assert_told(&recorder, &[&calls("_OTHER", crate::rpc::code_name(code), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gives_up_is_counted_as_cancelled() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    tokio::select! {
        _ = bench.ask(net::WAIT) => unreachable!("nothing releases it"),
        () = a.until_calls(1) => {}
    }
    assert_told(&recorder, &[&calls("_OTHER", "CANCELLED", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_method_is_a_label_only_if_a_contract_declares_it() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    until_known(&bench).await;
    let generated = |method| {
        let mut request = Request::new("text".to_owned());
        request.extensions_mut().insert(GrpcMethod::new("test.Echo", method));
        request
    };
    bench.ask(net::READ).await.expect("answered");
    bench.send(net::WHO, generated("Who")).await.expect("answered");
    bench.send(net::WHO, generated("Other")).await.expect("answered");
    bench.ask(net::WHO).await.expect("answered");
    assert_told(&recorder, &[&calls(net::READ, "OK", 1), &calls(net::WHO, "OK", 1), &calls("_OTHER", "OK", 2)]);
}

#[tokio::test(start_paused = true)]
async fn how_a_channel_and_its_endpoints_stand_is_told() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let bench = Bench::new(&["a"]);
    let _a = Host::configured(&bench.net, "a:1", "a", |config| config.limits.streams_per_connection = 7);
    bench.who().await;
    tokio::time::sleep(TOLD).await;
    assert_told(
        &recorder,
        &[
            r#"meshwork_client_queue_wait_seconds_count{service="echo"} 1"#,
            r#"meshwork_client_endpoint_state{service="echo",instance="a",state="ready"} 1"#,
            r#"meshwork_client_endpoint_state{service="echo",instance="a",state="ejected"} 0"#,
            r#"meshwork_client_endpoint_pending_calls{service="echo",instance="a"} 0"#,
            r#"meshwork_client_endpoint_stream_limit{service="echo",instance="a"} 7"#,
            r#"meshwork_client_retry_budget{service="echo"} 30"#,
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn counters_outlast_the_instances_and_are_no_instances_own() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    bench.answers(3).await;
    tokio::time::sleep(TOLD).await;
    bench.set(&[]);
    tokio::time::sleep(TOLD).await;
    bench.set(&["a"]);
    bench.answers(2).await;
    tokio::time::sleep(TOLD).await;
    assert_told(&recorder, &[r#"grpc_client_attempt_started_total{grpc_method="other",grpc_target="echo"} 5"#]);
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_and_those_that_the_budget_refuses() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
    servers.serve(&bench, "a", unavailable);
    until_known(&bench).await;
    bench.ask(net::WRITE).await.expect_err("unavailable");
    let retried = [
        r#"grpc_client_attempt_started_total{grpc_method="test.Echo/Write",grpc_target="echo"} 3"#,
        r#"grpc_client_call_retries_count{grpc_method="test.Echo/Write",grpc_target="echo"} 1"#,
        r#"grpc_client_call_retries_sum{grpc_method="test.Echo/Write",grpc_target="echo"} 2"#,
    ];
    assert_told(&recorder, &retried);
    set_policy(&bench, |retry| (retry.budget_percent, retry.budget_min_per_second) = (0, 0)).await;
    bench.ask(net::WRITE).await.expect_err("unavailable");
    assert_told(&recorder, &retried[1..]);
    assert_told(&recorder, &[r#"meshwork_client_retry_budget_refused_total{service="echo"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_place_of_a_refused_retry_is_a_transparent_retry_and_no_retry() {
    let recorder = recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
    let asked = AtomicUsize::new(0);
    servers.serve(&bench, "a", move |respond| {
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => return unavailable(respond),
            1 => respond.send_reset(h2::Reason::REFUSED_STREAM),
            _ => end(&mut begin(respond), Code::NotFound),
        }
        GO_ON
    });
    until_known(&bench).await;
    assert_eq!(bench.ask(net::WRITE).await.expect_err("as told").code(), Code::NotFound);
    let labels = r#"{grpc_method="test.Echo/Write",grpc_target="echo"}"#;
    let expected = [
        format!("grpc_client_attempt_started_total{labels} 3"),
        format!("grpc_client_call_retries_sum{labels} 1"),
        format!("grpc_client_call_transparent_retries_sum{labels} 1"),
    ];
    assert_told(&recorder, &expected.each_ref().map(String::as_str));
}

/// What is recorded in spans after they have begun.
#[derive(Clone, Default)]
struct Recorded(Arc<parking_lot::Mutex<BTreeMap<String, String>>>);

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.lock().insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.lock().insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Recorded {
    fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: layer::Context<'_, S>) {
        values.record(&mut self.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_call_says_which_endpoint_it_went_to_and_how_it_failed() {
    let recorded = Recorded::default();
    let _traced = tracing::subscriber::set_default(registry().with(recorded.clone()));
    let bench = Bench::new(&["a"]);
    let mut servers = Scripted::default();
    servers.serve(&bench, "a", |respond| scripted::fail(respond, Code::Aborted, None));
    // tracing asks once whether a span is of interest, and may have asked another test's thread, without a subscriber.
    bench.ask(net::WHO).await.expect_err("as scripted");
    tracing::callsite::rebuild_interest_cache();
    bench.ask(net::WHO).await.expect_err("as scripted");
    let said = recorded.0.lock().clone();
    let said = |field| said.get(field).map(String::as_str);
    assert_eq!(said("endpoint"), Some("a@a:1"));
    assert_eq!((said("otel.status_code"), said("rpc.response.status_code")), (Some("ERROR"), Some("ABORTED")));
}
