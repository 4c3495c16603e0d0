//! The server's own errors, beside those of its handlers.

use std::{any::Any, error::Error};

use http::{HeaderMap, HeaderValue, Response};
use tonic::{Code, Status, body::Body, codegen::StdError};

use crate::{
    headers::{INNER_CALL, INSTANCE, REFUSED, Refusal, drop_unreadable_details},
    log_limit::{LogLimit, MAX_CAUSES},
    rpc::{SERVER, code_name},
};

/// How tonic-prost's INTERNAL begins when a request's bytes are not its message.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Bytes of a status's message; escaped they may be three times as many. Messages are for people, and some quote what the
/// caller has sent. Clients bound the headers of an answer, some at 8 KiB, and one beyond that costs them their connection,
/// with all calls on it.
const MAX_MESSAGE: usize = 1024;
/// Bytes of a status's details as they are sent. Larger ones are left out, for the same reason.
const MAX_DETAILS: usize = 4 * 1024;

/// What a caller sees if a call on which its own call depends has failed: not the addresses behind the server.
const INNER_CALL_FAILED: &str = "a call that this one needs has failed";

/// The answer to a call that was not started.
pub(super) fn refused(refusal: Refusal, message: impl Into<String>) -> Response<Body> {
    let mut response: Response<Body> = SERVER.error(refusal.code(), refusal.reason(), message).into_http();
    response.headers_mut().insert(REFUSED, HeaderValue::from_static(refusal.name()));
    response
}

/// The caller's bytes are not a request.
pub(super) fn malformed(message: impl Into<String>) -> Status {
    SERVER.error(Code::InvalidArgument, "MALFORMED_REQUEST", message)
}

/// The caller's bytes cannot be inflated. gRPC's compression.md wants INTERNAL, although it is the caller's mistake.
pub(super) fn malformed_compression(message: impl Into<String>) -> Status {
    SERVER.error(Code::Internal, "MALFORMED_COMPRESSION", message)
}

/// What a call that ran past its deadline ends with.
pub(super) fn deadline_exceeded() -> Status {
    SERVER.error(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call was cut at its deadline")
}

/// The error of a call whose handler panicked: it is logged, and its details are hidden from the caller.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Status {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
    if let Some(left_out) = LIMIT.pass_once(message) {
        tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked{left_out}");
    }
    SERVER.error(Code::Internal, "PANIC", "the handler failed")
}

/// What a call ends with if a layer fails: the layer's status if it is one; other errors are hidden from the caller.
pub(super) fn of_layer(error: StdError) -> Status {
    Status::try_from_error(error).unwrap_or_else(|error| {
        static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
        if let Some(left_out) = LIMIT.pass_once(error.to_string()) {
            tracing::error!(error = &*error as &dyn Error, "a layer failed{left_out}");
        }
        SERVER.error(Code::Internal, "LAYER_FAILED", "a layer of the server failed")
    })
}

/// Removes from a handler's headers or trailers what only the server may set. A handler that returns the error of an
/// outbound call with `?` returns that call's metadata too, which must not claim that its own call was never started.
pub(super) fn strip_reserved(headers: &mut HeaderMap) {
    headers.remove(REFUSED);
    headers.remove(INSTANCE);
    if headers.remove(INNER_CALL).is_some() {
        let status = Status::from_header_map(headers).unwrap_or_else(|| Status::unknown("no status"));
        headers.insert(Status::GRPC_MESSAGE, HeaderValue::from_static(INNER_CALL_FAILED));
        static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
        let error = format!("{}: {}", code_name(status.code()), status.message());
        if let Some(left_out) = LIMIT.pass_once(&error) {
            tracing::warn!(%error, "a handler returned the error of an outbound call{left_out}");
        }
    }
}

/// Corrects a status in headers or trailers that were made by tonic or a handler: bytes that are not the method's
/// message are the caller's error, which tonic answers with INTERNAL; and what is too long for a client is cut.
pub(super) fn correct(headers: &mut HeaderMap) {
    const INTERNAL: &[u8] = b"13";
    // Not every service is tonic's own: one that passes on the answers of others may pass on anything.
    drop_unreadable_details(headers);
    let size = |name| headers.get(name).map_or(0, |value: &HeaderValue| value.len());
    let too_large = size(Status::GRPC_MESSAGE) > MAX_MESSAGE || size(Status::GRPC_STATUS_DETAILS) > MAX_DETAILS;
    let internal = headers.get(Status::GRPC_STATUS).is_some_and(|code| code.as_bytes() == INTERNAL);
    if !too_large && !internal {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    if internal && status.message().starts_with(UNDECODABLE) {
        put(&malformed(status.message()), headers);
    } else if too_large {
        put_shortened(&status, headers);
    }
}

fn put_shortened(status: &Status, headers: &mut HeaderMap) {
    let message = status.message();
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    put(&Status::new(status.code(), message), headers);
    if headers.get(Status::GRPC_STATUS_DETAILS).is_some_and(|details| details.len() > MAX_DETAILS) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_that_cannot_be_read_are_left_out_and_break_nothing() {
        let mut headers = HeaderMap::from_iter([
            (Status::GRPC_STATUS, HeaderValue::from_static("13")),
            (Status::GRPC_STATUS_DETAILS, HeaderValue::from_static("%%%")),
        ]);
        correct(&mut headers);
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        assert_eq!(headers.collect::<Vec<_>>(), [("grpc-status", b"13".as_slice())]);
    }
}
