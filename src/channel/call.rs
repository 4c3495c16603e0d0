//! A call on its way down the stack, and what a step of the stack is.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    task::Poll,
};

use futures_util::future::poll_fn;
use http::{HeaderMap, Request, Response, uri::PathAndQuery};
use tonic::{Status, body::Body};

use super::{error::CallError, peer::Peer, request::RequestBody, response::ResponseBody};
use crate::deadline::{self, Deadline, GRPC_TIMEOUT};

/// Put into a request's extensions: the call waits until an endpoint is ready, however long that takes (but not beyond its
/// deadline). Without it a call fails with UNAVAILABLE after 3 s without a ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// A call. Steps share it by reference: no attempt uses it up.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) wait_for_ready: Option<WaitForReady>,
    /// Who was asked last.
    peer: Mutex<Option<Peer>>,
}

impl Call {
    /// A call made by a task that works for another call with the deadline `inbound`.
    pub(crate) async fn new(request: Request<Body>, inbound: Option<Deadline>) -> Result<Self, CallError> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        let own = headers.remove(GRPC_TIMEOUT).map(|timeout| deadline::parse_timeout(&timeout)).transpose();
        let own = own.map_err(|error| CallError::Request(Box::new(Status::internal(error.to_string()))))?;
        let mut body = Some(body);
        let body = poll_fn(|context| {
            let body = body.take().expect("polled once, since it is ready at once");
            Poll::Ready(RequestBody::read_ahead(body, context))
        });
        let body = body.await.map_err(|status| CallError::Request(Box::new(status)))?;
        Ok(Self {
            path: parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
            body,
            deadline: own.map(Deadline::after).into_iter().chain(inbound).min(),
            wait_for_ready: parts.extensions.get().copied(),
            peer: Mutex::new(None),
        })
    }

    /// Notes who is asked.
    pub(crate) fn asks(&self, peer: &Peer) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.clone());
    }

    /// Who was asked last.
    pub(crate) fn asked(&self) -> Option<Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An answer, that holds on to its channel until it has been read.
pub(crate) type Answer = Response<ResponseBody<super::Channel>>;

/// A step of the stack: what tower calls a service, but shared, always ready, and with futures that need no box.
pub(crate) trait Step: Send + Sync {
    /// Makes the call, or an attempt at it.
    fn call(&self, call: &Call) -> impl Future<Output = Result<Answer, CallError>> + Send;
}
