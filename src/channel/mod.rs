//! THE client: a channel to a service, and the way that a call takes through it.
//!
//! ```text
//!   tonic client ─> Channel ─> deadline ─> retry ─> hedge ─> transparent retry ─> pick ─> gate ─> connection ─> server
//!                      ^                                                           ^        ^         ^
//!                      └ terms ─────────────┐                                      │        │         │
//!   discovery ── endpoint set ──> driver (one task per channel) ───────────────────┴────────┴─────────┘
//! ```
//!
//! A call is one future that runs in its caller's task; the driver only keeps the endpoints and serves those who wait. The
//! steps are assembled in `stack`, speak `http`, and know nothing of tonic but its body and its status at the edge.

mod call;
mod connection;
mod connector;
mod cork;
mod delivery;
mod dispatch;
mod driver;
mod endpoint;
mod error;
mod expiry;
mod hedge;
mod link;
mod metrics;
mod peer;
mod place;
mod request;
mod response;
mod response_times;
mod retry;
mod roster;
mod rounds;
mod spent;
mod stats;
mod terms;
mod transparent;
mod unbroken;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::sync::{Notify, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument as _;

pub use call::WaitForReady;
pub use connector::{BoxedIo, Connector, Io};
pub use stats::{CallStats, EndpointState, EndpointStats};

use call::{Call, Step};
use dispatch::Dispatch;
use driver::{Driver, Source};
use expiry::Expiry;
use hedge::Hedge;
use link::Link;
use metrics::{Report, Timed};
use retry::{Budget, Retry};
use roster::Roster;
use terms::Rules;
use transparent::Transparent;
use unbroken::Unbroken;

pub(crate) use peer::{InvalidPeer, Peer};
pub(crate) use place::Place;

use crate::{
    balance::Picker,
    deadline,
    endpoint_set::EndpointSet,
    trace::{self, TraceContext},
};

/// Assembles the stack: what every call goes through, outermost first.
fn stack(service: Arc<str>, rules: Arc<Rules>, budget: Arc<Budget>, dispatch: Dispatch) -> Stack {
    // The deadline is the caller's own: it covers every attempt, all waiting, and the reading of the answer.
    Expiry::new(
        service,
        // A failed call of a method that allows it is sent again, within the budget. Inside of the deadline, so that
        // attempts end with it.
        Retry::new(
            rules.clone(),
            budget.clone(),
            // A slow read is asked of a second endpoint as well. Inside of the retries, which so see one outcome of both.
            Hedge::new(
                rules,
                budget,
                dispatch.clone(),
                // An answer that breaks off before its message is a failed attempt.
                Unbroken::new(
                    // A call that no server has begun to process goes to another endpoint, whatever its method: innermost,
                    // so that it costs neither budget nor backoff.
                    Transparent::new(
                        // Each attempt picks anew: the one that refused may not be the best any more.
                        dispatch,
                    ),
                ),
            ),
        ),
    )
}

type Stack = Expiry<Retry<Hedge<Unbroken<Transparent<Dispatch>>>>>;

/// A channel to a service: give it to a generated client.
///
/// It is a cheap handle: clones share connections and loads. Calls go to the instances that serve, the least loaded first,
/// and move on if one refuses them before processing. A call without a ready instance fails with UNAVAILABLE after 3 s and
/// says why, unless its request carries [`WaitForReady`]. The deadline of a call is the earlier of its own (`set_timeout`)
/// and that of the inbound call which its task works for.
///
/// Every answer and error says in the metadata `meshwork-instance` which instance it came from.
///
/// The channel keeps its mesh running; its tasks end with its last handle and the last response body that came from it.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    /// The mesh, unless it is the mesh itself that holds the channel.
    _keep: Option<Arc<dyn Send + Sync + std::any::Any>>,
}

/// What the handles of a channel share. Its tasks end with it.
pub(crate) struct Shared {
    service: Arc<str>,
    rules: Arc<Rules>,
    stack: Stack,
    picker: Arc<Picker<Link>>,
    roster: Arc<Roster>,
    move_on: Arc<Notify>,
    _stop: DropGuard,
}

/// What channels are made in: the mesh's tasks, its end, its place, and its way to connect.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) place: Place,
    pub(crate) connector: Connector,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// A channel to the instances that discovery knows. `explain` tells what discovery itself suffers from.
    pub(crate) fn discovered(
        service: &str,
        endpoints: watch::Receiver<EndpointSet>,
        explain: impl Fn() -> Option<String> + Send + Sync + 'static,
        home: &Home,
    ) -> Arc<Self> {
        Self::open(service, Source::Discovery(endpoints), Roster::new(explain), home)
    }

    /// A channel to the first of some addresses that answers.
    pub(crate) fn fixed(service: &str, peers: Vec<Peer>, home: &Home) -> Arc<Self> {
        Self::open(service, Source::Fixed(peers), Roster::new(|| None), home)
    }

    fn open(service: &str, source: Source, roster: Roster, home: &Home) -> Arc<Self> {
        let service: Arc<str> = service.into();
        let (picker, roster, move_on) =
            (Arc::new(Picker::new(home.place.zone.clone())), Arc::new(roster), Arc::new(Notify::new()));
        let (rules, stop) = (Arc::new(Rules::default()), home.stop.child_token());
        let driver = Driver::new(picker.clone(), roster.clone(), rules.clone(), home.clone(), move_on.clone());
        // One for retries and hedges: both multiply the load.
        let budget = Arc::new(Budget::new(service.clone()));
        let report = Report {
            service: service.clone(),
            picker: picker.clone(),
            roster: roster.clone(),
            rules: rules.clone(),
            budget: budget.clone(),
        };
        let driven = driver.run(source, stop.clone());
        home.tasks.spawn(async move {
            tokio::select! {
                () = driven => {}
                never = report.run() => match never {}
            }
        });
        let dispatch = Dispatch::new(service.clone(), picker.clone(), roster.clone(), rules.clone());
        let stack = stack(service.clone(), rules.clone(), budget, dispatch);
        Arc::new(Self { service, rules, stack, picker, roster, move_on, _stop: stop.drop_guard() })
    }
}

impl Channel {
    /// A handle that keeps `keep` alive.
    pub(crate) fn keeping(shared: Arc<Shared>, keep: Arc<dyn Send + Sync + std::any::Any>) -> Self {
        Self { shared, _keep: Some(keep) }
    }

    /// A handle for the mesh's own use, which does not keep the mesh alive.
    pub(crate) fn internal(shared: Arc<Shared>) -> Self {
        Self { shared, _keep: None }
    }

    /// Every endpoint as this client sees it now.
    pub fn endpoints(&self) -> Vec<EndpointStats> {
        let stats = self.shared.roster.stats(self.shared.picker.statements());
        stats.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// The connection is of no use although it stands: makes a new one, to the next address if there are several.
    pub(crate) fn move_on(&self) {
        self.shared.move_on.notify_waiters();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("service", &self.shared.service).finish_non_exhaustive()
    }
}

/// A call under way.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: a call waits for its own endpoint, so that it can be cancelled, or fail, alone.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> ResponseFuture {
        let channel = self.clone();
        let inbound = deadline::current();
        let span = tracing::debug_span!(
            "outgoing",
            service = &*self.shared.service,
            path = request.uri().path(),
            otel.name = request.uri().path().trim_start_matches('/'),
            otel.kind = "client",
            endpoint = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
            rpc.response.status_code = tracing::field::Empty
        );
        let trace = TraceContext::of(&span).or_else(trace::current);
        if let Some(trace) = trace {
            trace.write_headers(request.headers_mut());
        }
        let Shared { service, rules, .. } = &*self.shared;
        let mut timed = Timed::begin(service.clone(), &request, rules, span.clone());
        let answered = async move {
            let answered = async {
                let call = Call::new(request, inbound, &channel.shared.rules).await?;
                channel.shared.stack.call(&call).await
            };
            match answered.await {
                Ok(answer) => Ok(delivery::deliver(answer, timed, channel)),
                Err(error) => {
                    let status = Status::from(error);
                    timed.answered();
                    timed.end(status.code());
                    Err(status)
                }
            }
        };
        Box::pin(answered.instrument(span))
    }
}
