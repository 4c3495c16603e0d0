//! A user's layers: which calls they see, what they may do with them, and that nothing else depends on them.

use std::{convert::Infallible, future::Ready, sync::mpsc, task};

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::{Code, Status, codegen::StdError, service::InterceptorLayer};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, layer::layer_fn};

use super::{
    calls::raw,
    logged::Logged,
    probe::{stream_of, unary},
    *,
};
use crate::contract::grpc::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

type Answer = Result<Response<Body>, StdError>;

fn with_token(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("x-token") {
        Some(_) => Ok(request),
        None => Err(Status::unauthenticated("no token")),
    }
}

fn refuse_all(_: Request<()>) -> Result<Request<()>, Status> {
    Err(Status::unauthenticated("no caller is allowed"))
}

/// Serves the probe within a layer that does this with each call.
fn run_within<F>(act: impl Fn(Routed, http::Request<Body>) -> F + Clone + Send + 'static) -> Running
where
    F: Future<Output = Answer> + Send + 'static,
{
    run(config(), |server| within(server, act))
}

pub(super) fn within<F>(
    server: Server,
    act: impl Fn(Routed, http::Request<Body>) -> F + Clone + Send + 'static,
) -> Server
where
    F: Future<Output = Answer> + Send + 'static,
{
    server.layer(layer_fn(move |routed: Routed| {
        let act = act.clone();
        tower::service_fn(move |request| act(routed.clone(), request))
    }))
}

#[tokio::test]
async fn a_layer_sees_the_users_calls_and_may_refuse_them() {
    let running = run(config(), |server| server.layer(InterceptorLayer::new(with_token)));
    let mut client = running.client().await;

    let refused = client.deregister(unary("")).await.expect_err("refused");
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "no token"));
    let refused = client.watch(stream_of("")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(running.probe.seen().started, 0);

    client.deregister(with_header(unary(""), "x-token", "sesame")).await.expect("served");
    client.watch(with_header(stream_of(""), "x-token", "sesame")).await.expect("served");
}

/// A service that answers everything with OK.
#[derive(Clone)]
pub(super) struct Pong;

impl NamedService for Pong {
    const NAME: &'static str = "test.Pong";
}

impl Service<http::Request<Body>> for Pong {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(Status::ok("").into_http()))
    }
}

#[tokio::test]
async fn health_reflection_and_the_meshs_own_services_pass_layers_by() {
    let running = run(config(), |server| server.layer(InterceptorLayer::new(refuse_all)).add_mesh_service(Pong));
    let mut connection = running.connect().await.expect("the server answers");
    client(connection.clone()).deregister(unary("")).await.expect_err("the layer is there");

    let origin = http::Uri::from_static("http://probe");
    let mut health = HealthClient::with_origin(connection.clone(), origin.clone());
    for service in ["", "meshwork.registry.v1.RegistryService", Pong::NAME] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect("known");
        assert_eq!(answer.get_ref().status(), ServingStatus::Serving, "{service:?}");
    }
    let ask = Some(MessageRequest::ListServices(String::new()));
    let requests = stream::iter([ServerReflectionRequest { host: String::new(), message_request: ask }]);
    let mut reflection = ServerReflectionClient::with_origin(connection.clone(), origin);
    let mut answers = reflection.server_reflection_info(requests).await.expect("served").into_inner();
    answers.message().await.expect("no error").expect("an answer");
    assert_eq!(raw(&mut connection, "test.Pong/Ping", "application/grpc", vec![0; 5]).await, (200, Code::Ok));
}

#[tokio::test]
async fn the_first_layer_is_the_outermost_and_each_is_around_all_services() {
    let (seen, calls) = mpsc::channel();
    let noting = |name: &'static str| {
        let seen = seen.clone();
        move |routed: Routed, request: http::Request<Body>| {
            seen.send(name).expect("the test is there");
            routed.oneshot(request)
        }
    };
    let running = run(config(), |server| within(within(server, noting("first")), noting("second")).add_service(Pong));
    let mut connection = running.connect().await.expect("the server answers");
    client(connection.clone()).deregister(unary("")).await.expect("served");
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(raw(&mut connection, "test.Pong/Ping", "application/grpc", vec![0; 5]).await, (200, Code::Ok));
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["first", "second"], "though it was added after them");
}

#[tokio::test]
async fn an_outer_layer_may_answer_for_the_error_of_an_inner_one() {
    let running = run(config(), |server| {
        let outer = within(server, |routed, request| async {
            let error = routed.oneshot(request).await.expect_err("the inner layer fails");
            Ok(Status::resource_exhausted(error.to_string()).into_http())
        });
        within(outer, |_, _| async { Err("full".into()) })
    });
    let answer = running.client().await.deregister(unary("")).await.expect_err("answered so");
    assert_eq!((answer.code(), answer.message()), (Code::ResourceExhausted, "full"));
}

#[tokio::test]
async fn an_error_of_a_layer_becomes_a_status_and_what_is_inside_stays_there() {
    let running = run_within(|routed, request| async {
        match request.headers().get("x-fail").map(http::HeaderValue::as_bytes) {
            None => routed.oneshot(request).await,
            Some(b"status") => Err(Status::permission_denied("not you").into()),
            Some(_) => Err("the password is sesame".into()),
        }
    });
    let mut client = running.client().await;

    let status = client.deregister(with_header(unary(""), "x-fail", "status")).await.expect_err("as told");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
    let other = client.deregister(with_header(unary(""), "x-fail", "other")).await.expect_err("as told");
    let reason = other.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!((other.code(), reason.as_deref()), (Code::Internal, Some("LAYER_FAILED")));
    assert!(!other.message().contains("sesame"), "{}", other.message());

    client.deregister(unary("")).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_refusal_of_a_layer_cannot_claim_that_the_server_has_not_started_the_call() {
    let running = run_within(|_, _| async {
        let mut status = Status::unavailable("not now");
        for (name, value) in [("meshwork-refused", "draining"), ("meshwork-instance", "downstream")] {
            status.metadata_mut().insert(name, value.parse().expect("a header value"));
        }
        Err(status.into())
    });
    let mut client = running.client().await;
    for refused in [
        client.deregister(unary("")).await.expect_err("refused"),
        client.watch(stream_of("")).await.expect_err("refused"),
    ] {
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(header(&refused, "meshwork-refused"), None);
        assert_eq!(header(&refused, "meshwork-instance"), Some("probe-1"));
    }
}

/// As of a service that returns the answers of others as its own.
#[tokio::test]
async fn a_body_that_fails_as_an_inner_call_has_tells_no_address_and_claims_nothing() {
    let (logged, _guard) = Logged::here();
    let running = run_within(|_, _| async {
        let mut status = Status::unavailable("the connection was lost at b@10.0.0.7:7601");
        let claims = [("meshwork-inner-call", "failed"), ("meshwork-refused", "draining"), ("meshwork-instance", "b")];
        for (name, value) in claims {
            status.metadata_mut().insert(name, value.parse().expect("a header value"));
        }
        let body = Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(status)])));
        Ok(http::Response::builder().header("content-type", "application/grpc").body(body).expect("a response"))
    });
    let mut client = running.client().await;
    let unary = client.deregister(unary("")).await.expect_err("as told");
    let mut messages = client.watch(stream_of("")).await.expect("begun").into_inner();
    for status in [unary, messages.message().await.expect_err("as told")] {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "a call that this one needs has failed"));
        for name in ["meshwork-inner-call", "meshwork-refused"] {
            assert_eq!(header(&status, name), None, "{name}");
        }
        assert_ne!(header(&status, "meshwork-instance"), Some("b"));
    }
    let lines = logged.lines();
    let told = "a handler returned the error of an outbound call error=UNAVAILABLE: the connection was lost at b@10.0.0.7:7601";
    assert_eq!(lines.iter().filter(|line| line.as_str() == told).count(), 1, "the log has it: {lines:#?}");
}

#[tokio::test]
async fn a_panic_in_a_layer_fails_only_its_call() {
    let running = run_within(|routed, request| {
        let how = request.headers().get("x-panic").cloned();
        let is = move |what: &str| how.as_ref().is_some_and(|how| how == what);
        assert!(!is("call"), "as told");
        async move {
            assert!(!is("future"), "as told");
            let answer = routed.oneshot(request).await?;
            if !is("body") {
                return Ok(answer);
            }
            let panics = stream::poll_fn(|_| -> task::Poll<Option<Result<Frame<Bytes>, Status>>> { panic!("as told") });
            Ok(answer.map(|_| Body::new(StreamBody::new(panics))))
        }
    });
    let mut client = running.client().await;
    for how in ["call", "future", "body"] {
        let unary = client.deregister(with_header(unary(""), "x-panic", how)).await.expect_err("as told");
        let stream = match client.watch(with_header(stream_of(""), "x-panic", how)).await {
            Ok(stream) => stream.into_inner().message().await.expect_err("as told"),
            Err(status) => status,
        };
        for status in [unary, stream] {
            let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
            assert_eq!((status.code(), reason.as_deref()), (Code::Internal, Some("PANIC")), "{how}");
            assert!(!status.message().contains("as told"), "internals stay here");
        }
        client.deregister(super::probe::unary("")).await.expect("the connection goes on");
    }
}

#[tokio::test]
async fn what_the_server_refuses_itself_reaches_no_layer() {
    let running = run_within(|_, _| async { panic!("no call comes here") });
    let mut connection = running.connect().await.expect("the server answers");
    let mut client = client(connection.clone());
    for (name, value) in [("meshwork-instance", "probe-0"), ("grpc-timeout", "0m")] {
        let refused = client.deregister(with_header(unary(""), name, value)).await.expect_err("refused");
        assert!(header(&refused, "meshwork-refused").is_some(), "{refused}");
    }
    assert_eq!(raw(&mut connection, "Nobody/Does", "application/grpc", vec![0; 5]).await, (200, Code::Unimplemented));
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_lets_a_call_wait_is_cut_at_the_deadline() {
    let running = run_within(|_, _| std::future::pending());
    let begin = Instant::now();
    let request = with_header(unary(""), "grpc-timeout", "250m");
    let cut = running.client().await.deregister(request).await.expect_err("cut");
    assert_eq!((cut.code(), begin.elapsed().as_millis()), (Code::DeadlineExceeded, 250));
}
