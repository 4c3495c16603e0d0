//! THE client: a channel to a service, and the way that a call takes through it.
//!
//! ```text
//!   tonic client ─> Channel ─> retry ─> hedge ─> commit ─> transparent retry ─> dispatch ─> connection ─> server
//!                      ^         layers: an Attempt goes down, a CallOutcome comes up      │
//!                      └ service config ───┐                                          pick: balance, endpoint
//!   discovery ── endpoint set ──> driver (one task per channel) ───────────────────────┘
//! ```
//!
//! A call is one future that runs in its caller's task; the driver only keeps the endpoints and serves the calls that wait. The
//! layers are assembled in `stack`, speak `http`, and know nothing of tonic but its body and its status at the edge. What an
//! answer means for any of them is decided in one place, `classify`.

pub(crate) mod body;
mod call;
mod classify;
mod context;
mod driver;
mod error;
mod layers;
mod locality;
mod metrics;
mod report;
mod response_times;
mod service_config;

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
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument as _;

pub use crate::endpoint::connection::connector::{BoxedIo, Connector, Io, Target};
pub use crate::endpoint::stats::{CallStats, EndpointState, EndpointStats};
pub use call::WaitForReady;

use body::{
    message_rules::{MAX_MESSAGE_SIZE, MessageRules, Responses},
    observed,
};
use call::{Attempt, Call, Step};
use driver::{Driver, Source};
use layers::{
    budget::Budget, commit::Commit, dispatch::Dispatch, hedge::Hedge, retry::Retry, transparent::Transparent,
};
use metrics::CallMetrics;
use report::Report;
use service_config::ServiceConfig;

pub(crate) use crate::endpoint::peer::Peer;
pub(crate) use context::ChannelContext;
pub(crate) use locality::Locality;

use crate::{
    balance::Picker,
    deadline,
    endpoint_set::EndpointSet,
    trace::{self, TraceContext},
};

/// Assembles the stack: what every call goes through, outermost first.
fn stack(config: Arc<ServiceConfig>, budget: Arc<Budget>, dispatch: Dispatch) -> Stack {
    // A failed call of a method that allows it is sent again, within the budget and the deadline.
    Retry::new(
        config.clone(),
        budget.clone(),
        // A slow read is sent to a second endpoint as well. Inside the retries, which so see one outcome for both.
        Hedge::new(
            config,
            budget,
            // An answer that breaks off before its message is a failed attempt.
            Commit::new(
                // A call that no server has begun to process goes to another endpoint, whatever its method: innermost, so
                // that it costs neither budget nor backoff.
                Transparent::new(
                    // Each attempt picks anew: the endpoint that refused may not be the best any more. It ends at the
                    // deadline of the call, wherever it is.
                    dispatch,
                ),
            ),
        ),
    )
}

type Stack = Retry<Hedge<Commit<Transparent<Dispatch>>>>;

/// A channel to a service: give it to a generated client.
///
/// It is a cheap handle: clones share connections and loads. Calls go to the instances that serve, the least loaded first,
/// and move on if one refuses them before processing. A call without a ready instance fails with UNAVAILABLE after 3 s and
/// says why, unless its request carries [`WaitForReady`]. The deadline of a call is the earlier of its own (`set_timeout`)
/// and that of the inbound call that its task serves.
///
/// Every answer and error names the instance that it came from in the metadata `meshwork-instance`.
///
/// The channel keeps its mesh running; its tasks end with its last handle and the last response body that came from it.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    max_response_message_size: usize,
    /// The mesh, unless it is the mesh itself that holds the channel.
    _keep: Option<Arc<dyn Send + Sync + std::any::Any>>,
}

/// What the handles of a channel share. Its tasks end with it.
pub(crate) struct Shared {
    service: Arc<str>,
    config: Arc<ServiceConfig>,
    metrics: CallMetrics,
    stack: Stack,
    picker: Arc<Picker>,
    reconnect: Arc<Notify>,
    _stop: DropGuard,
}

impl Shared {
    /// A channel to the instances that discovery knows. `explain` returns the problem of discovery itself.
    pub(crate) fn discovered(
        service: &str,
        endpoints: watch::Receiver<EndpointSet>,
        explain: impl Fn() -> Option<String> + Send + Sync + 'static,
        context: &ChannelContext,
    ) -> Arc<Self> {
        Self::open(service, Source::Discovery(endpoints), explain, context)
    }

    /// A channel to the first of some addresses that answers.
    pub(crate) fn fixed(service: &str, peers: Vec<Peer>, context: &ChannelContext) -> Arc<Self> {
        Self::open(service, Source::Fixed(peers), || None, context)
    }

    /// Every endpoint with its last connection error, for people.
    pub(crate) fn describe_endpoints(&self) -> Vec<String> {
        self.picker.endpoints().iter().map(ToString::to_string).collect()
    }

    fn open(
        service: &str,
        source: Source,
        explain: impl Fn() -> Option<String> + Send + Sync + 'static,
        context: &ChannelContext,
    ) -> Arc<Self> {
        let service: Arc<str> = service.into();
        let (picker, reconnect) = (Arc::new(Picker::new(context.locality.zone.clone())), Arc::new(Notify::new()));
        let (config, stop) = (Arc::new(ServiceConfig::default()), context.stop.child_token());
        let driver = Driver::new(service.clone(), picker.clone(), config.clone(), context.clone(), reconnect.clone());
        // One for retries and hedges: both multiply the load.
        let budget = Arc::new(Budget::new(service.clone()));
        let report =
            Report { service: service.clone(), picker: picker.clone(), config: config.clone(), budget: budget.clone() };
        context.tasks.spawn(driver.run(source, stop.clone()));
        let stopped = stop.clone();
        context.tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                never = report.run() => match never {}
            }
        });
        let dispatch = Dispatch::new(service.clone(), picker.clone(), config.clone(), explain);
        let stack = stack(config.clone(), budget, dispatch);
        let metrics = CallMetrics::new(service.clone());
        Arc::new(Self { service, config, metrics, stack, picker, reconnect, _stop: stop.drop_guard() })
    }
}

impl Channel {
    /// A handle that keeps `keep` alive.
    pub(crate) fn keeping(shared: Arc<Shared>, keep: Arc<dyn Send + Sync + std::any::Any>) -> Self {
        Self { shared, max_response_message_size: MAX_MESSAGE_SIZE, _keep: Some(keep) }
    }

    /// A handle for the mesh's own use, which does not keep the mesh alive.
    pub(crate) fn internal(shared: Arc<Shared>) -> Self {
        Self { shared, max_response_message_size: MAX_MESSAGE_SIZE, _keep: None }
    }

    /// Limits the size of a response message, in bytes, for calls through this handle and its clones; a larger message
    /// fails its call with RESOURCE_EXHAUSTED. Default 4 MiB, as everywhere in gRPC. To raise the limit, raise
    /// `max_decoding_message_size` of the tonic client as well.
    #[must_use]
    pub fn max_response_message_size(mut self, bytes: usize) -> Self {
        self.max_response_message_size = bytes;
        self
    }

    /// Every endpoint as this client sees it now.
    pub fn endpoints(&self) -> Vec<EndpointStats> {
        let now = Instant::now();
        self.shared.picker.endpoints().iter().map(|endpoint| endpoint.stats(now)).collect()
    }

    /// Replaces a connection that is open but of no use: connects anew, to the next address if there are several.
    pub(crate) fn reconnect(&self) {
        self.shared.reconnect.notify_waiters();
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
        let (mut timed, attempts) = self.shared.metrics.begin(&request, &self.shared.config, span.clone());
        let answered = async move {
            let answered = async {
                let call = Call::new(request, inbound, &channel.shared.config, attempts).await?;
                let responses = if call.config.is_unary() { Responses::One } else { Responses::Any };
                let rules = MessageRules::new(channel.max_response_message_size, responses);
                channel.shared.stack.call(&call, Attempt::FIRST).await.result.map(|answer| (answer, rules))
            };
            match answered.await {
                Ok((answer, rules)) => Ok(observed::observe(answer, rules, timed, channel)),
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
