//! Whether an attempt that has come to its end is worth another one, if its method allows it.
//!
//! Worth it is what says that this server cannot, now: UNAVAILABLE (gRPC A6's example, and what a proxy's 502, 503, 504 and
//! 429 mean), and an attempt that broke off. Everything else is an answer: another attempt would be told the same
//! (INTERNAL, UNKNOWN, ABORTED: a step higher up knows better), or comes too late (DEADLINE_EXCEEDED). Who says
//! RESOURCE_EXHAUSTED must say when to come again as well.

use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, HeaderValue, StatusCode};
use tonic::Code;

use crate::{
    channel::{
        call::Answer,
        error::{CallError, Failure},
    },
    headers::PUSHBACK,
    rpc::code_of,
};

/// Who wants more patience than this is taken to mean that the call should not be sent again: its caller is a better judge
/// of what to do until then.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(60);

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the call's outcome.
    Final,
    /// Another attempt may do better.
    Again,
    /// The server says when another attempt may do better.
    AgainAfter(Duration),
}

/// What the outcome of an attempt is worth.
pub(crate) fn verdict(result: &Result<Answer, CallError>) -> Verdict {
    match result {
        Ok(answer) => match answer.body().trailers_only() {
            Some(trailers) => of_status(answer.status(), trailers),
            None => of_status(answer.status(), answer.headers()),
        },
        Err(CallError::Endpoint(error)) if broke_off(error.failure) => Verdict::Again,
        // Of this attempt. Another one is not granted, but one may be under way.
        Err(CallError::Withdrawn { .. }) => Verdict::Again,
        Err(
            CallError::Endpoint(_)
            | CallError::NotReady(_)
            | CallError::QueueFull { .. }
            | CallError::Closed { .. }
            | CallError::DeadlineExceeded { .. }
            | CallError::Request(_),
        ) => Verdict::Final,
    }
}

/// Whether it says nothing about the call, only about the way to that server.
fn broke_off(failure: Failure) -> bool {
    match failure {
        Failure::NeverSent | Failure::NotProcessed | Failure::ConnectionLost => true,
        // Asked to go easy, or to come by a safer way.
        Failure::Reset(reason) => !matches!(reason, Reason::ENHANCE_YOUR_CALM | Reason::INADEQUATE_SECURITY),
    }
}

fn of_status(http: StatusCode, headers: &HeaderMap) -> Verdict {
    let pushback = headers.get(PUSHBACK).map(pushback);
    match (code_of(http, headers, None), pushback) {
        (Some(Code::Unavailable), None) => Verdict::Again,
        (Some(Code::Unavailable | Code::ResourceExhausted), Some(Some(wait))) => Verdict::AgainAfter(wait),
        _ => Verdict::Final,
    }
}

fn pushback(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    // Not `parse` alone, which accepts a sign.
    let wait = Duration::from_millis(text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?);
    (wait <= LONGEST_PUSHBACK).then_some(wait)
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn told(code: Code, pushback: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
        if let Some(pushback) = pushback {
            headers.insert(PUSHBACK, HeaderValue::from_str(pushback).expect("a header"));
        }
        of_status(StatusCode::OK, &headers)
    }

    #[test]
    fn only_unavailable_is_worth_another_attempt() {
        for code in (0..17).map(Code::from_i32) {
            let expected = if code == Code::Unavailable { Verdict::Again } else { Verdict::Final };
            assert_eq!(told(code, None), expected, "{code:?}");
        }
        assert_eq!(of_status(StatusCode::OK, &HeaderMap::new()), Verdict::Final, "a message is on its way");
    }

    #[test]
    fn a_proxy_that_cannot_reach_the_server_is_as_good_as_unavailable() {
        for (status, expected) in [
            (429, Verdict::Again),
            (502, Verdict::Again),
            (503, Verdict::Again),
            (504, Verdict::Again),
            (500, Verdict::Final),
            (404, Verdict::Final),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(of_status(status, &HeaderMap::new()), expected, "{status}");
        }
    }

    #[test]
    fn a_server_says_when_the_call_may_come_again_or_that_it_may_not() {
        let after = |ms| Verdict::AgainAfter(Duration::from_millis(ms));
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            for (pushback, expected) in [("0", after(0)), ("40", after(40)), ("60000", after(60_000))] {
                assert_eq!(told(code, Some(pushback)), expected, "{code:?} {pushback}");
            }
            for refused in ["-1", "+1", "", "soon", "1.5", " 1", "60001", "99999999999999999999999"] {
                assert_eq!(told(code, Some(refused)), Verdict::Final, "{code:?} {refused:?}");
            }
        }
        assert_eq!(told(Code::Internal, Some("40")), Verdict::Final);
    }

    #[test]
    fn an_attempt_that_broke_off_is_worth_another_unless_less_was_asked_for() {
        for failure in
            [Failure::NeverSent, Failure::NotProcessed, Failure::ConnectionLost, Failure::Reset(Reason::CANCEL)]
        {
            assert!(broke_off(failure), "{failure}");
        }
        for reason in [Reason::ENHANCE_YOUR_CALM, Reason::INADEQUATE_SECURITY] {
            assert!(!broke_off(Failure::Reset(reason)), "{reason}");
        }
    }
}
