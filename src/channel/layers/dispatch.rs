//! The lowest layer: finds an endpoint that is ready, sends the call there, and reads its answer.

use std::{sync::Arc, time::Duration};

use h2::Reason;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    uri::{Parts, Scheme},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::timeout::{Expired, Timer};
use crate::{
    balance::{NoPick, Picked, Picker},
    channel::{
        body::response::ResponseBody,
        call::{Answer, Attempt, AttemptKind, Call, CallOutcome, Step},
        classify::{Failure, Verdict, is_grpc},
        error::{CallError, EndpointError, NotReady, private},
        metrics,
        service_config::{CallConfig, ServiceConfig},
    },
    deadline::{GRPC_TIMEOUT, format_timeout},
    endpoint::{Pick, peer::Peer},
    headers::{INSTANCE, drop_unreadable_details},
    request_body::AttemptBody,
    service_name::{InvalidServiceName, check_service_name},
};

/// How long a call waits for a ready endpoint before it fails: long enough for a reconnect or a restart, short enough that a
/// person sees the problem.
const READY_LIMIT: Duration = Duration::from_secs(3);
/// gRFC A6: how many attempts at this call were made before this one, so that servers can see their retries.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

type Explain = dyn Fn() -> Option<String> + Send + Sync;

/// Picks an endpoint for every attempt and sends it there.
pub(crate) struct Dispatch {
    service: Arc<str>,
    /// Whether that can be a service's name.
    name: Result<(), InvalidServiceName>,
    picker: Arc<Picker>,
    config: Arc<ServiceConfig>,
    /// What there is to say about where the endpoints come from.
    explain: Box<Explain>,
}

impl Dispatch {
    pub(crate) fn new(
        service: Arc<str>,
        picker: Arc<Picker>,
        config: Arc<ServiceConfig>,
        explain: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let name = check_service_name(&service);
        Self { service, name, picker, config, explain: Box::new(explain) }
    }

    async fn pick(&self, call: &Call, attempt: Attempt<'_>) -> Result<Pick, CallError> {
        if let Err(problem) = self.name {
            return Err(CallError::InvalidService { service: self.service.to_string(), problem });
        }
        let closed = || CallError::Closed { service: self.service.to_string() };
        if let (AttemptKind::Hedge, Some(other)) = (attempt.kind, attempt.avoid) {
            return self.picker.pick_other(other).ok_or(CallError::NoOther);
        }
        let later = match self.picker.pick(attempt.avoid.map(|endpoint| &**endpoint)) {
            Ok(Picked::Now(pick)) => return Ok(pick),
            Ok(Picked::Later(later)) => later,
            Err(NoPick::Closed) => return Err(closed()),
            Err(NoPick::QueueFull) => return Err(CallError::QueueFull { service: self.service.to_string() }),
        };
        let begun = Instant::now();
        let patience = match call.wait_for_ready {
            Some(_) => None,
            None => Some(begun + READY_LIMIT),
        };
        let deadline = call.answer_by.map(|deadline| deadline.0);
        let picked = match [patience, deadline].into_iter().flatten().min() {
            Some(limit) => timeout_at(limit, later).await,
            None => Ok(later.await),
        };
        metrics::waited(&self.service, begun.elapsed());
        match picked {
            Ok(picked) => picked.map_err(|_| closed()),
            Err(_) if deadline.is_some_and(|deadline| patience.is_none_or(|patience| deadline <= patience)) => {
                Err(CallError::DeadlineExceeded { service: self.service.to_string(), peer: None })
            }
            Err(_) => Err(self.not_ready()),
        }
    }

    fn not_ready(&self) -> CallError {
        CallError::NotReady(Box::new(NotReady {
            service: self.service.to_string(),
            waited: READY_LIMIT,
            endpoints: self.picker.endpoints().iter().map(ToString::to_string).collect(),
            discovery: (self.explain)(),
        }))
    }

    async fn attempt(&self, call: &Call, attempt: Attempt<'_>) -> Result<Answer, CallError> {
        let pick = self.pick(call, attempt).await?;
        // An endpoint may have come since the attempt was granted, and its configuration before it.
        if !is_allowed(attempt.kind, &self.config.of(&call.path)) {
            pick.call.unsent();
            return Err(CallError::Withdrawn { service: self.service.to_string() });
        }
        call.count(attempt);
        if let Some(noted) = attempt.noted {
            noted.set(pick.call.endpoint());
        }
        self.send(call, attempt, pick).await
    }

    /// Makes one attempt at a call, and reports its result to its endpoint.
    async fn send(&self, call: &Call, attempt: Attempt<'_>, pick: Pick) -> Result<Answer, CallError> {
        let Pick { mut connection, call: mut in_flight } = pick;
        let peer = connection.peer().clone();
        tracing::Span::current().record("endpoint", tracing::field::display(&peer));
        let mut timer = Timer::until_answer(call.answer_by);
        if let Some(at) = timer.at() {
            in_flight.due(at);
        }
        let sent = timer.limit(connection.send(request(call, attempt, &peer))).await.map_err(|Expired| {
            CallError::DeadlineExceeded { service: self.service.to_string(), peer: Some(peer.clone()) }
        })?;
        match sent {
            Ok(response) => {
                let verdict = Verdict::of_headers(response.status(), response.headers());
                in_flight.answered(verdict.blame);
                if response.headers().contains_key(INSTANCE) {
                    in_flight.endpoint().saw_meshwork();
                }
                if let Some(pause) = verdict.pause {
                    in_flight.endpoint().pause(pause);
                }
                let upload = call.body.upload();
                let response =
                    response.map(|incoming| ResponseBody::new(incoming, in_flight, connection, upload, timer));
                Ok(answer(response, &peer, verdict))
            }
            Err(mut error) => {
                let never_sent = error.take_message().is_some();
                let source = error.into_error();
                let failure = if never_sent { Failure::NeverSent } else { Failure::of(&source) };
                if let Some(status) = call.body.broken() {
                    // The endpoint has no part in it: for it, the call was given up.
                    return Err(CallError::Request(Box::new(status)));
                }
                let verdict = Verdict::of_failure(failure);
                in_flight.answered(verdict.blame);
                if let Some(pause) = verdict.pause {
                    in_flight.endpoint().pause(pause);
                }
                tracing::debug!(endpoint = %peer, %failure, %source, "a call failed");
                let endpoint = in_flight.endpoint().clone();
                Err(CallError::Endpoint(EndpointError { endpoint, peer, failure, source: Some(source) }))
            }
        }
    }
}

impl Step for Dispatch {
    async fn call(&self, call: &Call, attempt: Attempt<'_>) -> CallOutcome {
        self.attempt(call, attempt).await.into()
    }
}

/// Whether a call of that configuration may be sent for that reason.
fn is_allowed(kind: AttemptKind, config: &CallConfig) -> bool {
    match kind {
        AttemptKind::First => true,
        AttemptKind::Retry => config.method.is_some(),
        AttemptKind::Hedge => config.hedged().is_some(),
    }
}

fn request(call: &Call, attempt: Attempt<'_>, peer: &Peer) -> Request<AttemptBody> {
    let mut uri = Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(peer.authority().clone());
    uri.path_and_query = Some(call.path.clone());
    let mut request = Request::new(call.body.attempt());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
    let mut headers = call.headers.clone();
    if let Some(instance) = peer.instance() {
        headers.insert(INSTANCE, instance.clone());
    }
    if let Some(deadline) = call.deadline {
        // What is left now: the call may have waited, or been elsewhere.
        headers.insert(GRPC_TIMEOUT, format_timeout(deadline.remaining()));
    }
    if attempt.number > 0 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(attempt.number));
    }
    *request.headers_mut() = headers;
    request
}

/// A response as the layers above see it. One that is not gRPC's, such as a proxy's error page, becomes a status: its body would
/// be read as messages.
fn answer(mut response: Answer, peer: &Peer, verdict: Verdict) -> Answer {
    if response.headers().contains_key(Status::GRPC_STATUS) {
        // Headers that say the status are the end.
        response.body_mut().end(Reason::NO_ERROR);
        drop_unreadable_details(response.headers_mut());
    } else if !is_grpc(response.status(), response.headers()) {
        let code = verdict.code.unwrap_or(Code::Unknown);
        let why = format!("HTTP {} from {peer}, which is not a gRPC response", response.status().as_u16());
        let mut body = response.into_body();
        body.end(Reason::CANCEL);
        response = Response::new(body);
        private(Status::new(code, why)).add_header(response.headers_mut()).expect("a message is made a header value");
    }
    // A Meshwork server says it itself; of any other we know which one we asked.
    if let Some(instance) = peer.instance() {
        response.headers_mut().entry(INSTANCE).or_insert_with(|| HeaderValue::clone(instance));
    }
    response
}
