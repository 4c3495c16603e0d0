//! A call on its way down the stack, and what a step of the stack is.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Poll,
};

use futures_util::future::poll_fn;
use http::{HeaderMap, Request, Response, uri::PathAndQuery};
use tonic::{Status, body::Body};

use super::{
    body::{request::RequestBody, response::ResponseBody},
    error::CallError,
    link::Link,
    service_config::{Rules, Terms},
};
use crate::{
    balance::Gate,
    deadline::{self, Deadline, GRPC_TIMEOUT},
    endpoint::peer::Peer,
};

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
    pub(crate) terms: Terms,
    pub(crate) deadline: Option<Deadline>,
    /// When the answer must have begun: at the deadline, or when the policy says so.
    pub(crate) answer_by: Option<Deadline>,
    pub(crate) wait_for_ready: Option<WaitForReady>,
    /// Attempts beside the first, but for transparent ones.
    further_attempts: AtomicU32,
    turned_away: AtomicBool,
    /// Who was asked last.
    asked: Mutex<Option<Asked>>,
}

/// Who a call was sent to.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) peer: Peer,
    pub(crate) gate: Arc<Gate<Link>>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.peer, f)
    }
}

impl Call {
    /// A call made by a task that works for another call with the deadline `inbound`.
    pub(crate) async fn new(
        request: Request<Body>,
        inbound: Option<Deadline>,
        rules: &Rules,
    ) -> Result<Self, CallError> {
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
        let path = parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let terms = rules.of(&path);
        let deadline = own.map(Deadline::after).into_iter().chain(inbound).min();
        let patience = terms.policy.timeout.map(Deadline::after);
        Ok(Self {
            path,
            headers,
            body,
            terms,
            deadline,
            answer_by: deadline.into_iter().chain(patience).min(),
            wait_for_ready: parts.extensions.get().copied(),
            further_attempts: AtomicU32::new(0),
            turned_away: AtomicBool::new(false),
            asked: Mutex::new(None),
        })
    }

    /// Notes who is asked.
    pub(crate) fn asks(&self, asked: Asked) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    /// Who was asked last.
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was sent again, not counting what no server began to process.
    pub(crate) fn further_attempts(&self) -> u32 {
        self.further_attempts.load(Ordering::Relaxed)
    }

    /// Notes that it is sent again.
    pub(crate) fn count_further_attempt(&self) {
        self.further_attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a server takes no more, and says whether that happens for the first time.
    pub(crate) fn turned_away(&self) -> bool {
        !self.turned_away.swap(true, Ordering::Relaxed)
    }
}

/// An answer, whose end is charged to its endpoint.
pub(crate) type Answer = Response<ResponseBody>;

/// A step of the stack: what tower calls a service, but shared, always ready, and with futures that need no box.
pub(crate) trait Step: Send + Sync {
    /// Makes the call, or an attempt at it.
    fn call(&self, call: &Call) -> impl Future<Output = Result<Answer, CallError>> + Send;
}
