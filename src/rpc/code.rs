//! gRPC's codes: their names, and how an answer carries its code.

use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status};

/// A code as contracts, grpcurl and OpenTelemetry write it, such as `DEADLINE_EXCEEDED`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether what failed so may succeed when it is asked again: as UNAVAILABLE, and INTERNAL and UNKNOWN, with which streams break off.
/// Otherwise one of the two is not what the other expects, or said so: tonic has OUT_OF_RANGE for messages that are too large.
pub fn may_pass(code: Code) -> bool {
    match code {
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => false,
    }
}

/// The code of an answer as far as it is known. `None`: its trailers, which have not come, will say it.
///
/// Headers say it if no message follows. An answer of a server that does not speak gRPC, such as a proxy, has the code that
/// gRPC gives its HTTP status (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
pub(crate) fn code_of(http: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>) -> Option<Code> {
    let said = [Some(headers), trailers].into_iter().flatten().find_map(code_in);
    match (said, http) {
        (Some(code), _) => Some(code),
        (None, StatusCode::OK) => trailers.map(|_| Code::Unknown),
        (None, StatusCode::BAD_REQUEST | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => Some(Code::Internal),
        (None, StatusCode::UNAUTHORIZED) => Some(Code::Unauthenticated),
        (None, StatusCode::FORBIDDEN) => Some(Code::PermissionDenied),
        (None, StatusCode::NOT_FOUND) => Some(Code::Unimplemented),
        (
            None,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT,
        ) => Some(Code::Unavailable),
        (None, _) => Some(Code::Unknown),
    }
}

/// Whether headers are those of a gRPC message: the content type is `application/grpc`, also with a format (`+proto`) or with
/// parameters, in whatever case. `application/grpc-web` is another protocol.
pub(crate) fn has_grpc_type(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let is_grpc = |value: &HeaderValue| {
        let (kind, rest) = value.as_bytes().split_at_checked(GRPC.len()).unwrap_or_default();
        kind.eq_ignore_ascii_case(GRPC) && rest.first().is_none_or(|next| matches!(next, b'+' | b';'))
    };
    headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// The code that headers or trailers say themselves, if they do.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code) -> HeaderMap {
        HeaderMap::from_iter([(Status::GRPC_STATUS, i32::from(code).into())])
    }

    #[test]
    fn only_application_grpc_with_or_without_a_format_is_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("Application/GRPC", true),
            ("application/grpcfoo", false),
            ("application/grpc-web", false),
            ("application/grpc ", false),
            ("application/grp", false),
            ("text/html", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(has_grpc_type(&headers), expected, "{value:?}");
        }
        assert!(!has_grpc_type(&HeaderMap::new()));
    }

    #[test]
    fn an_answer_says_its_code_in_headers_or_trailers_and_until_then_has_none() {
        let none = HeaderMap::new();
        assert_eq!(code_of(StatusCode::OK, &none, None), None);
        assert_eq!(code_of(StatusCode::OK, &status(Code::NotFound), None), Some(Code::NotFound));
        assert_eq!(code_of(StatusCode::OK, &none, Some(&status(Code::Ok))), Some(Code::Ok));
        assert_eq!(code_of(StatusCode::OK, &none, Some(&none)), Some(Code::Unknown), "it ended and has not said it");
        assert_eq!(code_of(StatusCode::BAD_GATEWAY, &status(Code::Aborted), None), Some(Code::Aborted));
    }

    #[test]
    fn an_answer_that_is_not_grpcs_has_the_code_of_its_http_status() {
        for (http, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (431, Code::Internal),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (415, Code::Unknown),
            (500, Code::Unknown),
        ] {
            let status = StatusCode::from_u16(http).expect("a status");
            assert_eq!(code_of(status, &HeaderMap::new(), None), Some(code), "{http}");
        }
    }
}
