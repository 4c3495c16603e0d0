//! What happens to a single call.

use futures_util::stream;
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt as _;

use super::{
    probe::{stream_of, unary},
    *,
};
use crate::contract::grpc::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Reads a stream to its end.
async fn whole<M>(mut stream: tonic::Streaming<M>) -> Result<(), tonic::Status> {
    while stream.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn every_answer_says_which_instance_gave_it() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let good = client.deregister(unary("")).await.expect("served");
    assert_eq!(good.metadata().get("meshwork-instance").expect("given"), "probe-1");
    let bad = client.list_services(crate::contract::meshwork::registry::v1::ListServicesRequest::default()).await;
    assert_eq!(header(&bad.expect_err("not implemented"), "meshwork-instance"), Some("probe-1"));
}

#[tokio::test]
async fn a_call_that_is_meant_for_another_instance_is_refused_before_it_starts() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;

    let refused = client.deregister(with_header(unary(""), "meshwork-instance", "probe-0")).await.expect_err("refused");

    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "WRONG_INSTANCE"));
    assert_eq!(header(&refused, "meshwork-refused"), Some("wrong-instance"));
    assert_eq!(running.probe.seen().started, 0);
    client
        .deregister(with_header(unary(""), "meshwork-instance", "probe-1"))
        .await
        .expect("served, as it is meant for us");
}

#[tokio::test]
async fn a_stream_that_has_begun_does_not_end_as_if_it_had_not() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let stream = client.watch(stream_of("claim")).await.expect("served").into_inner();
    let status = whole(stream).await.expect_err("as told");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!((header(&status, "meshwork-refused"), header(&status, "meshwork-instance")), (None, None));
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_started() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;

    let refused = client.deregister(with_header(unary(""), "grpc-timeout", "0m")).await.expect_err("refused");

    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXPIRED"));
    assert_eq!(header(&refused, "meshwork-refused"), Some("expired"));
    assert_eq!(running.probe.seen().started, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_cut_at_its_deadline_and_its_handler_dropped() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let begin = Instant::now();

    let cut = client.deregister(with_header(unary("wait"), "grpc-timeout", "250m")).await.expect_err("cut");

    assert_eq!((cut.code(), reason(&cut).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert_eq!(header(&cut, "meshwork-refused"), None, "it was started");
    assert_eq!(begin.elapsed().as_millis(), 250);
    running.probe.until(|seen| seen.started == 1 && seen.alive == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_cut_at_its_deadline_and_without_one_goes_on() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let mut endless = client.watch(stream_of("stubborn")).await.expect("served").into_inner();
    let request = with_header(stream_of("stubborn"), "grpc-timeout", "90S");
    let mut limited = client.watch(request).await.expect("served").into_inner();

    limited.message().await.expect("the first");
    assert_eq!(limited.message().await.expect_err("cut").code(), Code::DeadlineExceeded);

    endless.message().await.expect("the first");
    timeout(Duration::from_secs(500), endless.message()).await.expect_err("it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_handler_knows_its_deadline() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let left = client.deregister(with_header(unary("deadline"), "grpc-timeout", "7S")).await.expect_err("as told");
    assert_eq!(left.message(), "Some(7s)");
    let left = client.deregister(unary("deadline")).await.expect_err("as told");
    assert_eq!(left.message(), "Some(60s)", "a unary call always has an end");

    for (timeout, expected) in [(Some("7S"), "Some(7s)"), (None, "None")] {
        let mut request = Request::new(stream_of("deadline"));
        timeout.map(|value| request.metadata_mut().insert("grpc-timeout", value.parse().expect("a header value")));
        let status = match client.watch(request).await {
            Ok(stream) => whole(stream.into_inner()).await.expect_err("as told"),
            Err(status) => status,
        };
        assert_eq!(status.message(), expected, "a stream knows it while it flows");
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_call_and_nothing_else() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let stream = client.watch(stream_of("panic")).await.expect("served").into_inner();

    let unary_panic = client.deregister(unary("panic")).await.expect_err("as told");
    let stream_panic = whole(stream).await.expect_err("as told");

    for status in [unary_panic, stream_panic] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "PANIC"));
        assert!(!status.message().contains("as told"), "internals stay here");
    }
    client.deregister(unary("")).await.expect("the connection goes on");
}

/// Sends bytes as a request of the method, and tells how it is answered.
pub(super) async fn raw(
    connection: &mut Connection,
    path: &str,
    content_type: &str,
    bytes: impl Into<bytes::Bytes>,
) -> (u16, Code) {
    let request = http::Request::post(format!("http://probe/{path}")).header("content-type", content_type);
    let body = Body::new(http_body_util::Full::new(bytes.into()));
    let response = connection.call(request.body(body).expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a whole answer");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let code = tonic::Status::from_header_map(&headers).or_else(|| tonic::Status::from_header_map(&trailers));
    (status, code.map_or(Code::Ok, |status| status.code()))
}

#[tokio::test]
async fn bytes_that_are_no_request_are_the_callers_error() {
    const GRPC: &str = "application/grpc";
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    let rpc = |method: &str| format!("meshwork.registry.v1.RegistryService/{method}");
    for (what, path, bytes, expected) in [
        ("no message", rpc("Deregister"), &[][..], Code::Unimplemented),
        ("two messages", rpc("Deregister"), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::Unimplemented),
        ("two messages for a stream", rpc("Watch"), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::Unimplemented),
        ("a cut message", rpc("Deregister"), &[0, 0, 0, 0, 9, 1], Code::InvalidArgument),
        ("no protobuf", rpc("Deregister"), &[0, 0, 0, 0, 2, 0xff, 0xff], Code::InvalidArgument),
        ("no UTF-8", rpc("Deregister"), &[0, 0, 0, 0, 3, 10, 1, 0xff], Code::InvalidArgument),
        ("no protobuf, streamed", rpc("KeepAlive"), &[0, 0, 0, 0, 2, 0xff, 0xff], Code::InvalidArgument),
        ("a wrong flag", rpc("KeepAlive"), &[9, 0, 0, 0, 0], Code::InvalidArgument),
        ("compressed, without an encoding", rpc("Deregister"), &[1, 0, 0, 0, 0], Code::Internal),
        ("too large", rpc("Deregister"), &[0, 0xff, 0, 0, 0, 1], Code::ResourceExhausted),
        ("an unknown method", rpc("Else"), &[0, 0, 0, 0, 0], Code::Unimplemented),
        ("an unknown service", "Nobody/Does".into(), &[0, 0, 0, 0, 0], Code::Unimplemented),
        ("no path at all", String::new(), &[0, 0, 0, 0, 0], Code::Unimplemented),
        ("a failure of our own stays INTERNAL", rpc("Register"), &[0, 0, 0, 0, 0], Code::Internal),
    ] {
        assert_eq!(raw(&mut connection, &path, GRPC, bytes).await, (200, expected), "{what}");
    }
    let strange = client(connection.clone()).deregister(with_header(unary(""), "grpc-timeout", "soon")).await;
    assert_eq!(strange.expect_err("malformed").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_in_plain_http() {
    const METHOD: &str = "meshwork.registry.v1.RegistryService/Deregister";
    const MESSAGE: &[u8] = &[0, 0, 0, 0, 0];
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(raw(&mut connection, METHOD, content_type, MESSAGE).await, (200, Code::Ok), "{content_type}");
    }
    let started = running.probe.seen().started;
    for content_type in ["text/html", "application/grpcfoo", "application/grpc-web", "application/grpc-web+proto", ""] {
        assert_eq!(raw(&mut connection, METHOD, content_type, MESSAGE).await.0, 415, "{content_type}");
    }
    for method in [http::Method::GET, http::Method::PUT, http::Method::OPTIONS] {
        let request = http::Request::builder().method(method.clone()).uri(format!("http://probe/{METHOD}"));
        let request = request.header("content-type", "application/grpc").body(Body::empty()).expect("a request");
        let answer = connection.call(request).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.headers()["allow"].as_bytes()), (405, &b"POST"[..]), "{method}");
    }
    assert_eq!(running.probe.seen().started, started, "none of them was begun");
}

#[tokio::test]
async fn a_request_without_te_or_authority_is_served() {
    let running = run(config(), |server| server);
    let (mut sender, connection) = h2::client::handshake(running.pipe().await).await.expect("the server answers");
    let driver = tokio::spawn(connection);
    const PATH: &str = "/meshwork.registry.v1.RegistryService/Deregister";
    for (uri, version) in [
        (format!("http://probe{PATH}"), http::Version::HTTP_2),
        // How h2 is made to leave `:authority` out.
        (PATH.to_owned(), http::Version::HTTP_11),
    ] {
        let request = http::Request::post(&uri).version(version).header("content-type", "application/grpc");
        let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
        body.send_data(bytes::Bytes::from_static(&[0; 5]), true).expect("sent");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200, "{uri}");
        while let Some(data) = answer.body_mut().data().await {
            data.expect("a message");
        }
        let trailers = answer.body_mut().trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0", "{uri}");
    }
    driver.abort();
}

#[tokio::test]
async fn an_error_that_quotes_its_caller_at_length_does_not_break_the_connection() {
    const FRAME: usize = 5;
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    // An unknown symbol: reflection ends its stream with a message that has all of it. Each letter is escaped.
    let symbol = "\u{1f600}".repeat(10_000);
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol)),
    };
    let mut bytes = vec![0; FRAME];
    prost::Message::encode(&request, &mut bytes).expect("a Vec has room");
    let length = u32::try_from(bytes.len() - FRAME).expect("small");
    bytes[1..FRAME].copy_from_slice(&length.to_be_bytes());
    let path = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(raw(&mut connection, path, "application/grpc", bytes).await, (200, Code::NotFound));

    let path = format!("{}/Does", "%".repeat(12_000));
    assert_eq!(raw(&mut connection, &path, "application/grpc", vec![0; FRAME]).await, (200, Code::Unimplemented));
    client(connection).deregister(unary("")).await.expect("the connection goes on");
}

#[tokio::test]
async fn health_answers_for_each_service_and_the_whole() {
    let running = run(config(), |server| server);
    let connection = running.connect().await.expect("the server answers");
    let mut health = HealthClient::with_origin(connection, http::Uri::from_static("http://probe"));
    for service in ["", "meshwork.registry.v1.RegistryService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect("known");
        assert_eq!(answer.get_ref().status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "nobody".into() }).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_knows_error_details_in_both_versions() {
    let running = run(config(), |server| server);
    let connection = running.connect().await.expect("the server answers");
    let origin = http::Uri::from_static("http://probe");
    macro_rules! reflect {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = |ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
            let requests = stream::iter([
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("google.rpc.BadRequest".into())),
                ask(MessageRequest::FileContainingSymbol("meshwork.registry.v1.RegistryService".into())),
            ]);
            let mut client = ServerReflectionClient::with_origin(connection.clone(), origin.clone());
            let mut answers = client.server_reflection_info(requests).await.expect("served").into_inner();
            let mut next = async || answers.message().await.expect("answered").expect("one each").message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = next().await else { panic!("a list") };
            let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            for _ in 0..2 {
                assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))));
            }
            names
        }};
    }
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "meshwork.registry.v1.RegistryService",
    ];
    assert_eq!(reflect!(v1), expected);
    assert_eq!(reflect!(v1alpha), expected);
}
