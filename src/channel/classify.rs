//! What an answer, or its absence, means: one pure table for callers, metrics, load, ejection, retries and hedges.
//!
//! ```text
//!   HTTP status, gRPC code, refusal, pushback │ failure ──> code for the caller, blame, retry, unprocessed, pause
//! ```
//!
//! - **Retryable**: an answer that says that this server is unable now: UNAVAILABLE (gRFC A6's example, and what a proxy's 502, 503, 504 and
//!   429 mean), and an attempt that broke off. Everything else is final: another attempt would get the same answer
//!   (INTERNAL, UNKNOWN, ABORTED: a higher level decides better), or comes too late (DEADLINE_EXCEEDED). A server that says
//!   RESOURCE_EXHAUSTED must also say when to retry. Whether the method and the budget allow it is not decided here.
//! - **Blame**: an answer about the server counts against it, one about the call does not.
//! - **Unprocessed**: certainly no server has begun the call, so that any method may be sent again (gRFC A6's
//!   transparent retry).
//!
//! This is decided here and not by tonic, which maps a graceful GOAWAY to INTERNAL, a lost connection to UNKNOWN, and its own
//! timeout to CANCELLED.

use std::{error::Error as _, fmt, time::Duration};

use h2::Reason;
use http::{HeaderMap, HeaderValue, StatusCode};
use tonic::{Code, Status};

use crate::{
    endpoint::Blame,
    headers::{PUSHBACK, REFUSED, Refusal},
    rpc::{code_in, code_of, has_grpc_type},
};

/// A server that wants more patience than this is taken to mean that the call should not be sent again: its caller is a better
/// judge of what to do until then.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(60);
/// An instance that is leaving, or is not the one we know, gets no calls for this long; the registry will have said by then
/// that it is gone.
const GONE_PAUSE: Duration = Duration::from_secs(1);
/// An instance that has too many calls: some of them will have ended.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// What an answer means, or the failure to get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The code that the caller gets; `None`: the trailers, which have not come yet, will say it.
    pub(crate) code: Option<Code>,
    /// Whether it counts against the endpoint.
    pub(crate) blame: Blame,
    /// Whether another attempt may do better.
    pub(crate) retry: Retryable,
    /// Why it is certain that no server has begun with the call, if it is.
    pub(crate) unprocessed: Option<Unprocessed>,
    /// For how long the endpoint should get no calls.
    pub(crate) pause: Option<Duration>,
}

/// Whether another attempt may do better, if the method allows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retryable {
    /// It is the call's outcome.
    No,
    /// After a backoff.
    Backoff,
    /// When the server asks for it.
    After(Duration),
}

/// Why it is certain that no server has begun with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unprocessed {
    /// It never left, or reached a server that does not serve it (any more): that says nothing about the load.
    Misdirected,
    /// It came to a server that takes no more: to go on asking would multiply the load where there is too much.
    TurnedAway,
}

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It never left.
    NeverSent,
    /// The server says that it has not looked at it: REFUSED_STREAM, or a GOAWAY that does not cover it.
    NotProcessed,
    /// The connection broke; the server may have processed the call.
    ConnectionLost,
    /// The server, or our own HTTP/2, ended the stream.
    Reset(Reason),
    /// The answer ended without trailers.
    NoStatus,
}

impl Failure {
    /// What happened to a call or its answer.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        match cause.and_then(|cause| cause.reason().map(|reason| (cause, reason))) {
            Some((_, Reason::REFUSED_STREAM)) => Self::NotProcessed,
            // h2 gives a peer's GOAWAY to exactly the streams that it does not cover; the others end on their own.
            Some((cause, _)) if cause.is_go_away() && cause.is_remote() => Self::NotProcessed,
            Some((cause, reason)) if cause.is_reset() => Self::Reset(reason),
            // Sockets, keepalive, protocol errors of the whole connection, and our own end of it.
            Some(_) | None => Self::ConnectionLost,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSent => f.write_str("the call was not sent"),
            Self::NotProcessed => f.write_str("the call was not processed"),
            Self::ConnectionLost => f.write_str("the connection was lost"),
            Self::Reset(reason) => write!(f, "the call was reset ({reason})"),
            Self::NoStatus => f.write_str("the answer ended without a status"),
        }
    }
}

/// A server's pushback: when a call may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushback {
    After(Duration),
    Never,
}

/// A server's answer.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    http: StatusCode,
    code: Option<Code>,
    refusal: Option<Refusal>,
    pushback: Option<Pushback>,
}

impl Verdict {
    /// Of headers, or of trailers that came with the HTTP status `http`.
    pub(crate) fn of_headers(http: StatusCode, headers: &HeaderMap) -> Self {
        Self::of(Said {
            http,
            code: code_of(http, headers, None).or_else(|| (!is_grpc(http, headers)).then_some(Code::Unknown)),
            refusal: headers.get(REFUSED).and_then(|name| Refusal::parse(name.as_bytes())),
            pushback: headers.get(PUSHBACK).map(pushback),
        })
    }

    /// Of the trailers at the end of an answer.
    pub(crate) fn of_trailers(trailers: &HeaderMap) -> Self {
        Self::of(Said { code: Some(code_in(trailers).unwrap_or(Code::Unknown)), ..Said::default() })
    }

    /// Of a call that no endpoint had any part in.
    pub(crate) fn of_none(code: Code, retry: Retryable) -> Self {
        Self { code: Some(code), blame: Blame::None, retry, unprocessed: None, pause: None }
    }

    /// Of a call without an answer, or of an answer that broke off.
    pub(crate) fn of_failure(failure: Failure) -> Self {
        let (blame, retry, unprocessed, pause) = match failure {
            Failure::NeverSent => (Blame::Refused, Retryable::Backoff, Some(Unprocessed::Misdirected), None),
            Failure::NotProcessed => {
                (Blame::Refused, Retryable::Backoff, Some(Unprocessed::TurnedAway), Some(BUSY_PAUSE))
            }
            Failure::ConnectionLost => (Blame::Failed, Retryable::Backoff, None, None),
            // Asked to go easy: the server has no room, which is no failure.
            Failure::Reset(Reason::ENHANCE_YOUR_CALM) => (Blame::Refused, Retryable::No, None, None),
            // Asked to come by a safer way.
            Failure::Reset(Reason::INADEQUATE_SECURITY) => (Blame::Failed, Retryable::No, None, None),
            Failure::Reset(_) => (Blame::Failed, Retryable::Backoff, None, None),
            // It may have done all of its work.
            Failure::NoStatus => (Blame::Failed, Retryable::No, None, None),
        };
        Self { code: Some(code_of_failure(failure)), blame, retry, unprocessed, pause }
    }

    fn of(said: Said) -> Self {
        let (unprocessed, pause) = match said.refusal {
            Some(Refusal::WrongInstance | Refusal::Draining | Refusal::NotAdmitted | Refusal::RulesUnknown) => {
                (Some(Unprocessed::Misdirected), Some(GONE_PAUSE))
            }
            Some(Refusal::Overloaded) => (Some(Unprocessed::TurnedAway), Some(BUSY_PAUSE)),
            // Another server could not be in time either.
            Some(Refusal::Expired) | None => (None, None),
        };
        let blame = match said.refusal {
            Some(Refusal::Expired) => Blame::None,
            Some(
                Refusal::WrongInstance
                | Refusal::Draining
                | Refusal::NotAdmitted
                | Refusal::RulesUnknown
                | Refusal::Overloaded,
            ) => Blame::Refused,
            None => blame(said.http, said.code),
        };
        let retry = match (said.code, said.pushback) {
            (Some(Code::Unavailable), None) => Retryable::Backoff,
            (Some(Code::Unavailable | Code::ResourceExhausted), Some(Pushback::After(wait))) => Retryable::After(wait),
            _ => Retryable::No,
        };
        Self { code: said.code, blame, retry, unprocessed, pause }
    }
}

/// Whether a response is a gRPC response: it has a status, or it is a 200 with the content type `application/grpc`, also with a
/// format (`+proto`), in any case. A gRPC content type with an HTTP error has no messages either.
pub(crate) fn is_grpc(http: StatusCode, headers: &HeaderMap) -> bool {
    headers.contains_key(Status::GRPC_STATUS) || http == StatusCode::OK && has_grpc_type(headers)
}

/// Whether a code, or an HTTP status of something that does not speak gRPC, counts against the endpoint.
fn blame(http: StatusCode, code: Option<Code>) -> Blame {
    match code {
        // The caller's headers are too large for any server.
        _ if http == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Blame::None,
        Some(Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss) => Blame::Failed,
        // A quota, or a server without room: another may do better, but it is no failure of this one.
        Some(Code::ResourceExhausted) => Blame::Refused,
        // It is about the caller's credentials, whatever the source of the answer.
        Some(Code::Unauthenticated | Code::PermissionDenied) => Blame::None,
        // Something else than the service answers there.
        _ if !http.is_success() => Blame::Failed,
        // The caller's matter, or the business's.
        _ => Blame::None,
    }
}

/// The gRPC code: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors>.
fn code_of_failure(failure: Failure) -> Code {
    match failure {
        Failure::NeverSent | Failure::NotProcessed | Failure::ConnectionLost => Code::Unavailable,
        Failure::Reset(Reason::CANCEL) => Code::Cancelled,
        Failure::Reset(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Failure::Reset(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Failure::Reset(_) => Code::Internal,
        Failure::NoStatus => Code::Unknown,
    }
}

/// Reads gRFC A6's pushback.
fn pushback(value: &HeaderValue) -> Pushback {
    // Not `parse` alone, which accepts a sign.
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let wait = digits.and_then(|text| text.parse().ok()).map(Duration::from_millis);
    wait.filter(|wait| *wait <= LONGEST_PUSHBACK).map_or(Pushback::Never, Pushback::After)
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    use super::*;

    fn headers(code: Option<Code>, refusal: Option<Refusal>, pushback: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(code) = code {
            headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
        }
        if let Some(refusal) = refusal {
            headers.insert(REFUSED, HeaderValue::from_static(refusal.name()));
        }
        if let Some(pushback) = pushback {
            headers.insert(PUSHBACK, HeaderValue::from_str(pushback).expect("a header"));
        }
        headers
    }

    fn told(code: Code, pushback: Option<&str>) -> Retryable {
        Verdict::of_headers(StatusCode::OK, &headers(Some(code), None, pushback)).retry
    }

    #[test]
    fn only_unavailable_is_worth_another_attempt() {
        for code in (0..17).map(Code::from_i32) {
            let expected = if code == Code::Unavailable { Retryable::Backoff } else { Retryable::No };
            assert_eq!(told(code, None), expected, "{code:?}");
        }
        let begun = |content_type| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            let Verdict { code, retry, blame, .. } = Verdict::of_headers(StatusCode::OK, &headers);
            (code, retry, blame)
        };
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8", "Application/GRPC"]
        {
            assert_eq!(begun(grpc), (None, Retryable::No, Blame::None), "a message is on its way");
        }
        for other in ["text/html", "application/grpcfoo", "application/grpc-web", ""] {
            assert_eq!(begun(other), (Some(Code::Unknown), Retryable::No, Blame::Failed), "{other}");
        }
    }

    #[test]
    fn an_http_error_has_the_mapped_code_for_caller_retry_and_endpoint() {
        for (status, code, retry, blame) in [
            (400, Code::Internal, Retryable::No, Blame::Failed),
            (401, Code::Unauthenticated, Retryable::No, Blame::None),
            (403, Code::PermissionDenied, Retryable::No, Blame::None),
            (404, Code::Unimplemented, Retryable::No, Blame::Failed),
            (429, Code::Unavailable, Retryable::Backoff, Blame::Failed),
            (431, Code::Internal, Retryable::No, Blame::None),
            (500, Code::Unknown, Retryable::No, Blame::Failed),
            (502, Code::Unavailable, Retryable::Backoff, Blame::Failed),
            (503, Code::Unavailable, Retryable::Backoff, Blame::Failed),
            (504, Code::Unavailable, Retryable::Backoff, Blame::Failed),
        ] {
            let http = StatusCode::from_u16(status).expect("a status");
            let verdict = Verdict::of_headers(http, &HeaderMap::new());
            assert_eq!((verdict.code, verdict.retry, verdict.blame), (Some(code), retry, blame), "{status}");
        }
    }

    #[test]
    fn a_server_says_when_the_call_may_come_again_or_that_it_may_not() {
        let after = |ms| Retryable::After(Duration::from_millis(ms));
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            for (pushback, expected) in [("0", after(0)), ("40", after(40)), ("60000", after(60_000))] {
                assert_eq!(told(code, Some(pushback)), expected, "{code:?} {pushback}");
            }
            for refused in ["-1", "+1", "", "soon", "1.5", " 1", "60001", "99999999999999999999999"] {
                assert_eq!(told(code, Some(refused)), Retryable::No, "{code:?} {refused:?}");
            }
        }
        assert_eq!(told(Code::Internal, Some("40")), Retryable::No);
    }

    #[test]
    fn an_attempt_that_broke_off_is_worth_another_unless_less_was_asked_for() {
        for failure in
            [Failure::NeverSent, Failure::NotProcessed, Failure::ConnectionLost, Failure::Reset(Reason::CANCEL)]
        {
            assert_eq!(Verdict::of_failure(failure).retry, Retryable::Backoff, "{failure}");
        }
        for reason in [Reason::ENHANCE_YOUR_CALM, Reason::INADEQUATE_SECURITY] {
            assert_eq!(Verdict::of_failure(Failure::Reset(reason)).retry, Retryable::No, "{reason}");
        }
    }

    #[test]
    fn resets_have_the_codes_of_the_grpc_specification() {
        for (reason, code) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::INTERNAL_ERROR, Code::Internal),
            (Reason::FLOW_CONTROL_ERROR, Code::Internal),
            (Reason::STREAM_CLOSED, Code::Internal),
            (Reason::FRAME_SIZE_ERROR, Code::Internal),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
        ] {
            assert_eq!(Verdict::of_failure(Failure::Reset(reason)).code, Some(code), "{reason}");
        }
        assert_eq!(Verdict::of_failure(Failure::ConnectionLost).code, Some(Code::Unavailable));
        assert_eq!(Verdict::of_failure(Failure::NotProcessed).code, Some(Code::Unavailable));
    }

    fn any_failure() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::NeverSent),
            Just(Failure::NotProcessed),
            Just(Failure::ConnectionLost),
            Just(Failure::NoStatus),
            (0..20_u32).prop_map(|reason| Failure::Reset(reason.into())),
        ]
    }

    fn any_headers() -> impl Strategy<Value = (StatusCode, HeaderMap)> {
        let http = (100..600_u16).prop_map(|status| StatusCode::from_u16(status).expect("in range"));
        let code = prop::option::of((0..17).prop_map(Code::from_i32));
        let refusal = prop::option::weighted(0.3, prop::sample::select(Refusal::ALL.to_vec()));
        let pushback = prop::option::of(prop_oneof![Just("7"), Just("-1"), Just("x"), Just("70000")]);
        let content_type = prop::sample::select(vec!["application/grpc", "text/html"]);
        (prop_oneof![Just(StatusCode::OK), http], code, refusal, pushback, content_type).prop_map(
            |(http, code, refusal, pushback, content_type)| {
                let mut headers = headers(code, refusal, pushback);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                (http, headers)
            },
        )
    }

    proptest! {
        /// What all layers rely on, over the whole table.
        #[test]
        fn the_columns_of_the_table_agree_with_each_other(answer in any_headers(), failure in any_failure()) {
            let of_headers = Verdict::of_headers(answer.0, &answer.1);
            for verdict in [of_headers, Verdict::of_failure(failure)] {
                // A server that has begun with a call is never told to have not.
                if verdict.unprocessed.is_some() {
                    prop_assert_eq!(verdict.blame, Blame::Refused, "it did not fail, others are to be preferred");
                }
                prop_assert!(verdict.pause.is_none() || verdict.unprocessed.is_some(), "only a refusal pauses");
                if let Retryable::After(wait) = verdict.retry {
                    prop_assert!(wait <= LONGEST_PUSHBACK);
                }
                if verdict.code == Some(Code::Ok) && verdict.unprocessed.is_none() && answer.0.is_success() {
                    prop_assert_eq!((verdict.blame, verdict.retry), (Blame::None, Retryable::No));
                }
            }
            prop_assert!(Verdict::of_failure(failure).code.is_some_and(|code| code != Code::Ok));
            let is_open = answer.1.get(Status::GRPC_STATUS).is_none() && is_grpc(answer.0, &answer.1);
            prop_assert_eq!(of_headers.code.is_none(), is_open);
        }
    }
}
