//! A call on its way down the stack, the attempts at it, and what comes back up.

use std::{future::Future, sync::Arc, task::Poll};

use futures_util::future::poll_fn;
use http::{HeaderMap, HeaderValue, Request, Response, header::USER_AGENT, uri::PathAndQuery};
use parking_lot::Mutex;
use tonic::{Code, Status, body::Body};

use super::{
    body::response::ResponseBody,
    classify::{Retryable, Verdict},
    error::CallError,
    metrics::AttemptCounts,
    service_config::{CallConfig, ServiceConfig},
};
use crate::{
    deadline::{self, Deadline, GRPC_TIMEOUT},
    endpoint::Endpoint,
    headers::{SUBJECT, fields, header_list_size},
    request_body::RequestBody,
};

/// The `user-agent` of a call, in the form of gRPC's protocol.
const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("grpc-rust-meshwork/", env!("CARGO_PKG_VERSION")));

/// Bytes of a request's headers, as HTTP/2 counts them. Java's and C++'s servers take 8 KiB by default and ours 16 KiB, and fail the
/// call if it has more; but of far larger headers a server may end the connection, and all other calls on it.
const MAX_REQUEST_HEADERS: usize = 64 * 1024;

/// Put into a request's extensions: the call waits until an endpoint is ready, however long that takes (but not beyond its
/// deadline). Without it a call fails with UNAVAILABLE after 3 s without a ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// A call. No attempt uses it up or changes it, but for its request stream, which remembers what was read of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    pub(crate) config: CallConfig,
    pub(crate) deadline: Option<Deadline>,
    /// When the answer must have begun: at the deadline, or after the policy's timeout.
    pub(crate) answer_by: Option<Deadline>,
    pub(crate) wait_for_ready: Option<WaitForReady>,
    attempts: AttemptCounts,
}

impl Call {
    /// A call made by a task that works for another call with the deadline `inbound`.
    pub(crate) async fn new(
        request: Request<Body>,
        inbound: Option<Deadline>,
        service_config: &ServiceConfig,
        attempts: AttemptCounts,
    ) -> Result<Self, CallError> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        let own = headers.remove(GRPC_TIMEOUT).map(|timeout| deadline::parse_timeout(&timeout)).transpose();
        let own = own.map_err(|error| CallError::Request(Box::new(Status::internal(error.to_string()))))?;
        // A handler that passes its metadata on must not speak for its caller's user.
        headers.remove(SUBJECT);
        headers.entry(USER_AGENT).or_insert(USER_AGENT_VALUE);
        check_size(&headers)?;
        let mut body = Some(body);
        let body = poll_fn(|context| {
            let body = body.take().expect("polled once, since it is ready at once");
            Poll::Ready(RequestBody::read_ahead(body, context))
        });
        let body = body.await.map_err(|status| CallError::Request(Box::new(status)))?;
        let path = parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let config = service_config.of(&path);
        let deadline = own.map(Deadline::after).into_iter().chain(inbound).min();
        let patience = config.policy.timeout.map(Deadline::after);
        Ok(Self {
            path,
            headers,
            body,
            config,
            deadline,
            answer_by: deadline.into_iter().chain(patience).min(),
            wait_for_ready: parts.extensions.get().copied(),
            attempts,
        })
    }

    /// Counts an attempt that is sent.
    pub(crate) fn count(&self, attempt: Attempt<'_>) {
        match attempt.kind {
            _ if attempt.transparent_retries > 0 => self.attempts.transparent_retry(),
            AttemptKind::First => self.attempts.first(),
            AttemptKind::Retry => self.attempts.retry(),
            AttemptKind::Hedge => self.attempts.hedge(),
        }
    }
}

/// Headers that would cost other calls their connection are not sent.
fn check_size(headers: &HeaderMap) -> Result<(), CallError> {
    let size = header_list_size(fields(headers));
    if size <= MAX_REQUEST_HEADERS {
        return Ok(());
    }
    let message =
        format!("the request's metadata has {size} bytes, which is more than the limit of {MAX_REQUEST_HEADERS} bytes");
    Err(CallError::Request(Box::new(Status::resource_exhausted(message))))
}

/// One attempt at a call, as the layers pass it down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) kind: AttemptKind,
    /// Attempts that were made before it; transparent ones do not count.
    pub(crate) number: u32,
    /// Attempts that no server had begun to process, and in whose place it is made.
    pub(crate) transparent_retries: u32,
    /// An endpoint that has had the call already: it gets it again only if no other is ready.
    pub(crate) avoid: Option<&'a Arc<Endpoint>>,
    /// Whether a server has turned the call away before.
    pub(crate) turned_away: bool,
    /// Where it is noted which endpoint has the attempt, for a layer that must know before the outcome.
    pub(crate) noted: Option<&'a Noted>,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    /// It is the first.
    First,
    /// One before it has failed.
    Retry,
    /// One before it is slow. It does not wait for an endpoint, and goes to no third.
    Hedge,
}

impl Attempt<'_> {
    pub(crate) const FIRST: Self = Self {
        kind: AttemptKind::First,
        number: 0,
        transparent_retries: 0,
        avoid: None,
        turned_away: false,
        noted: None,
    };
}

/// Which endpoint has an attempt now.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<Option<Arc<Endpoint>>>);

impl Noted {
    pub(crate) fn set(&self, endpoint: &Arc<Endpoint>) {
        *self.0.lock() = Some(endpoint.clone());
    }

    pub(crate) fn get(&self) -> Option<Arc<Endpoint>> {
        self.0.lock().clone()
    }
}

/// An answer, whose end is charged to its endpoint.
pub(crate) type Answer = Response<ResponseBody>;

/// What came of an attempt, or of several.
#[derive(Debug)]
pub(crate) struct CallOutcome {
    pub(crate) result: Result<Answer, CallError>,
    /// Hedges that were made in it.
    pub(crate) hedges: u32,
    /// Whether a server turned the call away.
    pub(crate) turned_away: bool,
}

impl CallOutcome {
    /// The endpoint that it came from.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.result {
            Ok(answer) => Some(answer.body().endpoint()),
            Err(CallError::Endpoint(error)) => Some(&error.endpoint),
            Err(
                CallError::NotReady(_)
                | CallError::InvalidService { .. }
                | CallError::NoOther
                | CallError::QueueFull { .. }
                | CallError::Withdrawn { .. }
                | CallError::Closed { .. }
                | CallError::DeadlineExceeded { .. }
                | CallError::Request(_),
            ) => None,
        }
    }

    /// What it means.
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.result {
            Ok(answer) => verdict(answer),
            Err(CallError::Endpoint(error)) => Verdict::of_failure(error.failure),
            // Of this attempt: the call goes on while another one is under way.
            Err(CallError::Withdrawn { .. } | CallError::NoOther) => {
                Verdict::of_none(Code::Unavailable, Retryable::Backoff)
            }
            Err(CallError::NotReady(_) | CallError::QueueFull { .. } | CallError::Closed { .. }) => {
                Verdict::of_none(Code::Unavailable, Retryable::No)
            }
            Err(CallError::InvalidService { .. }) => Verdict::of_none(Code::InvalidArgument, Retryable::No),
            Err(CallError::DeadlineExceeded { .. }) => Verdict::of_none(Code::DeadlineExceeded, Retryable::No),
            Err(CallError::Request(status)) => Verdict::of_none(status.code(), Retryable::No),
        }
    }
}

/// What an answer means as far as it has come.
pub(crate) fn verdict(answer: &Answer) -> Verdict {
    Verdict::of_headers(answer.status(), answer.body().trailers_only().unwrap_or(answer.headers()))
}

impl From<Result<Answer, CallError>> for CallOutcome {
    fn from(result: Result<Answer, CallError>) -> Self {
        Self { result, hedges: 0, turned_away: false }
    }
}

/// A layer of the stack with all that is below it: what tower calls a service, but shared, always ready, and with futures that
/// need no box.
pub(crate) trait Step: Send + Sync {
    /// Makes an attempt at the call.
    fn call(&self, call: &Call, attempt: Attempt<'_>) -> impl Future<Output = CallOutcome> + Send;
}
