//! The errors that the server answers by itself, beside those of its handlers.

use std::any::Any;

use http::{HeaderMap, Response};
use tonic::{Code, Status, body::Body};

use super::request::malformed;
use crate::{
    headers::{REFUSED, Refusal},
    rpc::Domain,
};

/// Who these errors come from.
pub(super) const ERRORS: Domain = Domain::new("server.meshwork");

/// How tonic-prost's INTERNAL begins when a request's bytes are not its message.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// What a long stream ends with when its server leaves: the client moves to another instance.
pub fn draining_status() -> Status {
    ERRORS.error(Code::Unavailable, Refusal::Draining.reason(), "this instance is draining: continue on another one")
}

/// The answer to a call that was not started.
pub(super) fn refused(refusal: Refusal, message: impl Into<String>) -> Response<Body> {
    let mut response: Response<Body> = ERRORS.error(refusal.code(), refusal.reason(), message).into_http();
    response.headers_mut().insert(REFUSED, http::HeaderValue::from_static(refusal.name()));
    response
}

/// What a call that ran past its deadline ends with.
pub(super) fn deadline_exceeded() -> Status {
    ERRORS.error(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call was cut at its deadline")
}

/// What a call ends with whose handler panicked: logged, and nothing of it told to the caller.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Status {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked");
    ERRORS.error(Code::Internal, "PANIC", "the handler failed")
}

/// Bytes that are not the method's message are the caller's error, which tonic answers with INTERNAL: in such headers or
/// trailers the status is set right.
pub(super) fn correct(headers: &mut HeaderMap) {
    const INTERNAL: &[u8] = b"13";
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code.as_bytes() != INTERNAL) {
        return;
    }
    if let Some(status) = Status::from_header_map(headers).filter(|status| status.message().starts_with(UNDECODABLE)) {
        put(&malformed(status.message()), headers);
    }
}

/// A status as the end of a stream.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(status, &mut headers);
    headers
}

fn put(status: &Status, headers: &mut HeaderMap) {
    status.add_header(headers).expect("tonic percent-encodes a message into a header value");
}
