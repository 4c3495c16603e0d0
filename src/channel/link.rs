//! One connection as calls use it: makes the request for its endpoint, and judges how it went there.

use std::{sync::Arc, time::Duration};

use h2::Reason;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version, uri::Scheme};
use hyper::{body::Incoming, client::conn::http2::SendRequest};

use super::{
    body::{
        request::AttemptBody,
        response::{ResponseBody, outcome},
    },
    call::{Answer, Asked, Call},
    error::{CallError, EndpointError, Failure},
    layers::transparent::refusal,
};
use crate::{
    balance::{self, Gate, Outcome, PendingCall},
    deadline::{GRPC_TIMEOUT, format_timeout},
    endpoint::{connection::deferred_drop::Spent, peer::Peer},
    headers::{INSTANCE, Refusal, drop_unreadable_details},
    rpc::code_of,
};

/// gRPC A6: how many attempts at this call were made before this one, so that servers can see their retries.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// An instance that is leaving, or is not the one we know, gets no calls for this long; the registry will have said by then
/// that it is gone.
const GONE_PAUSE: Duration = Duration::from_secs(1);
/// An instance that has too many calls: some of them will have ended.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A handle on an open connection.
#[derive(Clone)]
pub(crate) struct Link {
    sender: SendRequest<AttemptBody>,
    peer: Peer,
    spent: Spent,
}

impl balance::Link for Link {
    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Link {
    pub(crate) fn new(sender: SendRequest<AttemptBody>, peer: Peer, spent: Spent) -> Self {
        Self { sender, peer, spent }
    }

    /// Makes one attempt at a call. What it finds out about the endpoint goes to `pending` (its load) and `gate`.
    pub(super) async fn send(
        mut self,
        call: &Call,
        mut pending: PendingCall,
        gate: &Arc<Gate<Self>>,
    ) -> Result<Answer, CallError> {
        call.asks(Asked { peer: self.peer.clone(), gate: gate.clone() });
        tracing::Span::current().record("endpoint", tracing::field::display(&self.peer));
        if let Some(limit) = call.answer_by {
            pending.due(limit.0);
        }
        match self.sender.try_send_request(self.request(call)).await {
            Ok(response) => {
                pending.answered(judge(&response, gate));
                Ok(self.answer(response, pending))
            }
            Err(mut error) => {
                let never_sent = error.take_message().is_some();
                let source = error.into_error();
                let failure = if never_sent { Failure::NeverSent } else { Failure::of(&source) };
                if let Some(status) = call.body.broken() {
                    // The endpoint has no part in it: for it, the call was given up.
                    return Err(CallError::Request(Box::new(status)));
                }
                pending.answered(blame(failure));
                if failure == Failure::NotProcessed {
                    gate.pause(BUSY_PAUSE);
                }
                tracing::debug!(endpoint = %self.peer, %failure, %source, "a call failed");
                Err(CallError::Endpoint(EndpointError { peer: self.peer, failure, source }))
            }
        }
    }

    fn request(&self, call: &Call) -> Request<AttemptBody> {
        let mut request = Request::new(call.body.attempt());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.peer.authority().clone())
            .path_and_query(call.path.clone())
            .build()
            .expect("scheme, authority and path make a URI");
        let mut headers = call.headers.clone();
        if let Some(instance) = self.peer.instance() {
            headers.insert(INSTANCE, instance.clone());
        }
        if let Some(deadline) = call.deadline {
            // What is left now: the call may have waited, or been elsewhere.
            headers.insert(GRPC_TIMEOUT, format_timeout(deadline.remaining()));
        }
        let further = call.further_attempts();
        if further > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(further));
        }
        *request.headers_mut() = headers;
        request
    }

    fn answer(self, mut response: Response<Incoming>, pending: PendingCall) -> Answer {
        drop_unreadable_details(response.headers_mut());
        // A Meshwork server says it itself; from any other we know whom we asked.
        if let Some(instance) = self.peer.instance() {
            response.headers_mut().entry(INSTANCE).or_insert_with(|| HeaderValue::clone(instance));
        }
        response.map(|incoming| ResponseBody::new(incoming, pending, self.peer, self.spent))
    }
}

/// What an answer says about its endpoint.
fn judge(response: &Response<Incoming>, gate: &Gate<Link>) -> Outcome {
    match refusal(response) {
        None => {
            if !response.status().is_success() {
                return Outcome::Failed;
            }
            code_of(response.status(), response.headers(), None).map_or(Outcome::Served, outcome)
        }
        Some(Refusal::Expired) => Outcome::Served,
        Some(Refusal::Overloaded) => {
            gate.pause(BUSY_PAUSE);
            Outcome::Refused
        }
        Some(Refusal::WrongInstance | Refusal::Draining | Refusal::NotAdmitted) => {
            gate.pause(GONE_PAUSE);
            Outcome::Refused
        }
    }
}

/// What a call without an answer says about its endpoint. One that leaves, or has no room, does not fail.
fn blame(failure: Failure) -> Outcome {
    match failure {
        Failure::NeverSent | Failure::NotProcessed | Failure::Reset(Reason::ENHANCE_YOUR_CALM) => Outcome::Refused,
        Failure::ConnectionLost | Failure::Reset(_) => Outcome::Failed,
    }
}
