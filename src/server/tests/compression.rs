//! Requests that are compressed.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::Code;
use tower::util::MapRequestLayer;

use super::{
    probe::{stream_of, unary},
    *,
};
use crate::contract::{
    grpc::health::v1::HealthCheckRequest,
    meshwork::registry::v1::{KeepAliveRequest, KeepAliveResponse},
};

fn framed(flag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("small");
    [&[flag], &length.to_be_bytes()[..], content].concat()
}

fn compressed(message: &impl Message) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&message.encode_to_vec()).expect("a Vec has room");
    framed(1, &encoder.finish().expect("a Vec has room"))
}

struct Answer {
    headers: http::HeaderMap,
    code: Code,
    messages: bytes::Bytes,
}

/// Sends bytes as the request of a method, in this encoding.
async fn send(running: &Running, method: &str, encoding: Option<&str>, bytes: Vec<u8>) -> Answer {
    let mut connection = running.connect().await.expect("the server answers");
    let request = http::Request::post(format!("http://probe/{method}")).header("content-type", "application/grpc");
    let request = encoding.into_iter().fold(request, |request, encoding| request.header("grpc-encoding", encoding));
    let response = connection.call(request.body(Body::new(Full::new(bytes.into()))).expect("a request")).await;
    let (parts, body) = response.expect("an answer").into_parts();
    let body = body.collect().await.expect("a whole answer");
    let status = tonic::Status::from_header_map(&parts.headers)
        .or_else(|| tonic::Status::from_header_map(body.trailers()?))
        .expect("a status");
    Answer { headers: parts.headers, code: status.code(), messages: body.to_bytes() }
}

const DEREGISTER: &str = "meshwork.registry.v1.RegistryService/Deregister";
const KEEP_ALIVE: &str = "meshwork.registry.v1.RegistryService/KeepAlive";
const WATCH: &str = "meshwork.registry.v1.RegistryService/Watch";
const CHECK: &str = "grpc.health.v1.Health/Check";

#[tokio::test]
async fn every_service_takes_requests_in_gzip_and_says_so_in_every_answer() {
    let running = run(config(), |server| server);
    let unknown = HealthCheckRequest { service: "nobody".into() };
    for (method, bytes, code) in [
        (DEREGISTER, compressed(&unary("")), Code::Ok),
        (DEREGISTER, compressed(&unary("panic")), Code::Internal),
        (WATCH, compressed(&stream_of("claim")), Code::Unavailable),
        (CHECK, compressed(&HealthCheckRequest::default()), Code::Ok),
        (CHECK, compressed(&unknown), Code::NotFound),
        ("nobody/Does", compressed(&unknown), Code::Unimplemented),
    ] {
        let answer = send(&running, method, Some("gzip"), bytes).await;
        assert_eq!(answer.code, code, "{method}");
        assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity", "{method}");
        assert!(!answer.headers.contains_key("grpc-encoding"), "{method}: answers are not compressed");
    }
}

#[tokio::test]
async fn a_stream_may_have_messages_that_are_compressed_and_others_that_are_not() {
    let running = run(config(), |server| server);
    let request = |lease: &str| KeepAliveRequest { lease_id: lease.into() };
    let (plain, empty) = (framed(0, &request("b").encode_to_vec()), framed(0, &[]));
    let bytes = [compressed(&request("a")), plain, empty, compressed(&request("c"))].concat();
    let answer = send(&running, KEEP_ALIVE, Some("gzip"), bytes).await;
    let echoed = ["a", "b", "", "c"].map(|lease| KeepAliveResponse { lease_id: lease.into(), state: 0 });
    let expected: Vec<u8> = echoed.iter().flat_map(|message| framed(0, &message.encode_to_vec())).collect();
    assert_eq!((answer.code, &answer.messages[..]), (Code::Ok, &expected[..]));
}

#[tokio::test]
async fn what_cannot_be_inflated_fails_its_own_call_as_grpc_has_it() {
    let running = run(config(), |server| server);
    let bomb = unary(&"x".repeat(config().limits.message_size));
    let good = || compressed(&unary(""));
    for (what, encoding, bytes, code) in [
        ("an unknown encoding", Some("snappy"), good(), Code::Unimplemented),
        ("no encoding is named", None, good(), Code::Internal),
        ("it is said not to be compressed", Some("identity"), good(), Code::Internal),
        ("not gzip", Some("gzip"), framed(1, &[7; 40]), Code::Internal),
        ("a bomb", Some("gzip"), compressed(&bomb), Code::ResourceExhausted),
        ("two messages", Some("gzip"), [good(), good()].concat(), Code::Unimplemented),
        ("it ends within a message", Some("gzip"), good()[..12].to_vec(), Code::InvalidArgument),
        ("not compressed", Some("identity"), framed(0, &[]), Code::Ok),
        ("not compressed after all", Some("gzip"), framed(0, &[]), Code::Ok),
    ] {
        let answer = send(&running, DEREGISTER, encoding, bytes).await;
        assert_eq!(answer.code, code, "{what}");
        assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity", "{what}");
    }
}

#[tokio::test]
async fn a_layer_sees_a_request_as_it_came() {
    let (seen, encodings) = std::sync::mpsc::channel();
    let see = move |request: http::Request<Body>| {
        seen.send(request.headers().get("grpc-encoding").cloned()).expect("the test is here");
        request
    };
    let running = run(config(), |server| server.layer(MapRequestLayer::new(see)));
    assert_eq!(send(&running, DEREGISTER, Some("gzip"), compressed(&unary(""))).await.code, Code::Ok);
    assert_eq!(encodings.recv().expect("seen").expect("named"), "gzip");
}
