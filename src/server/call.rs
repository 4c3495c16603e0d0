//! THE server stack: the way of one call from its headers to its answer, from the outside in.
//!
//! It is one function to be read from top to bottom ([`Stack::answer`]) and not a tower of layers, because every step
//! needs what the step before found out. Before [`Stack::run`] nothing of a call has happened: what is refused until
//! then may be sent again, and says so.

use std::{collections::BTreeMap, error::Error, future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::OptionFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::ALLOW};
use http_body::Body as HttpBody;
use tokio::{sync::OwnedSemaphorePermit, time::sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tracing::{Instrument as _, Span};

use super::{
    Limits,
    authorization::{Authorization, Subject},
    compression::{self, Inflating},
    fault::{self, malformed},
    infrastructure::{Kind, Served},
    layers::Handler,
    limits::Places,
    methods::{Flow, Methods},
    metrics,
    peer::Peer,
    request::{CheckedBody, Encoding},
    response::{StreamBody, StreamEnd, UnaryBody},
};
use crate::{
    authorization::of_path,
    deadline::{self, Deadline, GRPC_TIMEOUT},
    headers::{INSTANCE, Refusal, SUBJECT, fields, header_list_size},
    health::Condition,
    identity::PeerIdentity,
    rpc::{SERVER, Timed, code_of, connection_ends_status, draining_status, has_grpc_type},
    trace::{self, TraceContext},
};

/// What all calls of a server share.
pub(super) struct Stack {
    pub(super) infrastructure: Inflating,
    /// By their full names.
    pub(super) services: BTreeMap<String, Served>,
    pub(super) authorization: Authorization,
    pub(super) methods: Methods,
    pub(super) instance: HeaderValue,
    pub(super) limits: Limits,
    pub(super) places: Places,
    /// Of health and reflection, which everyone may call: they take none from those that rules let in.
    pub(super) open_places: Places,
    pub(super) draining: CancellationToken,
    /// Whether each registry admits the instance.
    pub(super) admissions: Vec<Condition>,
}

/// A call that may begin.
struct Admitted {
    kind: Kind,
    subject: Subject,
    flow: Flow,
    deadline: Option<Deadline>,
    permit: OwnedSemaphorePermit,
}

impl Admitted {
    /// When the answer must have begun, at the latest: a request that should be one message and never ends holds its permit
    /// no longer.
    fn begin_by(&self, longest: Duration) -> Option<Deadline> {
        match self.flow {
            Flow::Unary | Flow::ClientStreaming => self.deadline,
            Flow::ServerStreaming => self.deadline.into_iter().chain([Deadline::after(longest)]).min(),
        }
    }
}

impl Stack {
    /// Answers one call, by `own` if it is for one of the user's services. Never fails: what goes wrong is the answer.
    pub(super) async fn answer<B>(self: Arc<Self>, own: Handler, peer: Peer, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        request.extensions_mut().insert(peer.identity.clone());
        let path = request.uri().path();
        let timed = self.methods.unary(path).cloned().map(Timed::begin);
        let (mut response, span) = match self.admit(&request, &peer.identity) {
            Ok(admitted) => {
                let span = span(path, &peer.identity);
                (self.run(admitted, own, peer, request, span.clone()).await, span)
            }
            Err(refused) => {
                metrics::refused(&refused);
                (*refused, Span::none())
            }
        };
        fault::correct(response.headers_mut());
        if let Some(code) = code_of(response.status(), response.headers(), None).filter(|code| is_servers_fault(*code))
        {
            trace::failed(&span, code);
        }
        if let Some(timed) = timed {
            response = UnaryBody::counted(response, timed);
        }
        // On every answer, so that an error says where it comes from.
        response.headers_mut().insert(INSTANCE, self.instance.clone());
        compression::announce(response.headers_mut());
        response
    }

    /// Decides whether a call may begin.
    fn admit<B>(&self, request: &Request<B>, caller: &PeerIdentity) -> Result<Admitted, Box<Response<Body>>> {
        let (headers, path) = (request.headers(), request.uri().path());
        // What is not gRPC is answered in plain HTTP, as the specification of gRPC over HTTP/2 wants it: a browser or a crawler
        // understands nothing else.
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(response);
        }
        if !has_grpc_type(headers) {
            return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        self.check_headers(request)?;
        // First of all: a call that is meant for another must not be judged by our services or our load.
        if headers.get(INSTANCE).is_some_and(|meant| meant != self.instance) {
            let message = format!("this is instance {}, not the one that was called", self.shown_instance());
            return Err(refused(Refusal::WrongInstance, message));
        }
        let Served { kind, audience } = self.served(path)?;
        // Before all that tells how the server is.
        let subject = self.authorization.authorize(audience, caller, path)?;
        let kind = *kind;
        self.check_admission(kind)?;
        let flow = self.methods.flow(path);
        let deadline = self.deadline(headers, flow)?;
        let permit = self.permit(kind, flow)?;
        Ok(Admitted { kind, subject, flow, deadline, permit })
    }

    /// Headers beyond the limit are the caller's error. HTTP/2 itself lets more through: see [`READABLE_HEADERS`].
    ///
    /// [`READABLE_HEADERS`]: super::connection::READABLE_HEADERS
    fn check_headers<B>(&self, request: &Request<B>) -> Result<(), Box<Response<Body>>> {
        let (size, limit) = (request_size(request), self.limits.header_list_size);
        if u32::try_from(size).is_ok_and(|size| size <= limit) {
            return Ok(());
        }
        let message = format!("the request's headers have {size} bytes, which is more than the limit of {limit} bytes");
        Err(Box::new(SERVER.error(Code::ResourceExhausted, "HEADERS_TOO_LARGE", message).into_http()))
    }

    /// The service that is called.
    fn served(&self, path: &str) -> Result<&Served, Box<Response<Body>>> {
        let (service, _) = of_path(path);
        if let Some(served) = self.services.get(service) {
            return Ok(served);
        }
        let message = format!("service {service} is not served by instance {}", self.shown_instance());
        Err(Box::new(SERVER.error(Code::Unimplemented, "UNKNOWN_SERVICE", message).into_http()))
    }

    /// Whoever comes directly, or with an old list of endpoints, must not be served from a store that is not the service's.
    fn check_admission(&self, kind: Kind) -> Result<(), Box<Response<Body>>> {
        match self.admissions.iter().find_map(Condition::problem) {
            Some(problem) if kind != Kind::Grpc => Err(refused(Refusal::NotAdmitted, &*problem)),
            Some(_) | None => Ok(()),
        }
    }

    /// When the call must be over. A unary call always has an end, a stream only if its caller sets one.
    fn deadline(&self, headers: &HeaderMap, flow: Flow) -> Result<Option<Deadline>, Box<Response<Body>>> {
        let timeout = headers.get(GRPC_TIMEOUT).map(deadline::parse_timeout).transpose();
        let timeout = timeout.map_err(|error| Box::new(malformed(error.to_string()).into_http()))?;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(refused(Refusal::Expired, "the deadline had passed before the call was started"));
        }
        let longest = match flow {
            Flow::Unary => Some(self.limits.unary_time),
            Flow::ServerStreaming | Flow::ClientStreaming => None,
        };
        Ok(timeout.into_iter().chain(longest).min().map(Deadline::after))
    }

    /// One of the calls that may run at a time.
    fn permit(&self, kind: Kind, flow: Flow) -> Result<OwnedSemaphorePermit, Box<Response<Body>>> {
        let places = match kind {
            Kind::Grpc => &self.open_places,
            Kind::Own | Kind::Mesh => &self.places,
        };
        let permits = match flow {
            Flow::Unary => &places.calls,
            Flow::ServerStreaming | Flow::ClientStreaming => {
                if self.draining.is_cancelled() {
                    return Err(refused(Refusal::Draining, "this instance is stopping and takes no new streams"));
                }
                &places.streams
            }
        };
        let full = |_| refused(Refusal::Overloaded, "this instance has as many calls as it takes");
        permits.clone().try_acquire_owned().map_err(full)
    }

    /// Runs a call: a handler's panic and its deadline end it, and what ends a stream.
    async fn run<B>(
        self: &Arc<Self>,
        admitted: Admitted,
        own: Handler,
        peer: Peer,
        mut request: Request<B>,
        span: Span,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let begin_by = admitted.begin_by(self.limits.unary_time);
        let Admitted { kind, subject, flow, deadline, permit } = admitted;
        if subject == Subject::Removed {
            request.headers_mut().remove(SUBJECT);
        }
        let mut end = match flow {
            Flow::Unary => None,
            Flow::ServerStreaming | Flow::ClientStreaming => {
                Some(self.stream_end(kind, peer, request.uri().path(), deadline))
            }
        };
        let trace = TraceContext::from_headers(request.headers());
        if let Some(trace) = &trace {
            trace.adopt(&span);
        }
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let encoding = Encoding::of(request.headers());
        let of_request = end.clone();
        let request =
            request.map(|body| Body::new(CheckedBody::new(body, self.limits.message_size, flow, encoding, of_request)));
        let handler = match kind {
            Kind::Own => own,
            Kind::Mesh | Kind::Grpc => Handler::Routes(self.infrastructure.clone()),
        };
        let handled = trace::scope(trace, handler.call(request).instrument(span));
        let handled = AssertUnwindSafe(handled).catch_unwind();
        let handled = async {
            match deadline {
                None => handled.await,
                Some(deadline) => deadline::scope(deadline, handled).await,
            }
        };
        // An answer that has begun is ended by its body.
        let handled = tokio::select! {
            biased;
            handled = handled => handled,
            Some(status) = OptionFuture::from(end.as_mut()) => return status.into_http(),
            Some(()) = OptionFuture::from(begin_by.map(|at| sleep_until(at.0))) => {
                return fault::deadline_exceeded().into_http();
            }
        };
        let mut response = match handled {
            Ok(response) => response,
            Err(panic) => return fault::panicked(panic.as_ref()).into_http(),
        };
        fault::strip_reserved(response.headers_mut());
        match end {
            // Its message is ready, so that its permit can be given to the next while the peer reads.
            None => response,
            Some(end) => response.map(|body| Body::new(StreamBody::new(body, permit, deadline, end))),
        }
    }

    /// What ends a stream: its deadline, that its caller may not call any more, that its connection ends with its certificate, and the
    /// drain, of which health and reflection do not know themselves.
    fn stream_end(self: &Arc<Self>, kind: Kind, peer: Peer, path: &str, deadline: Option<Deadline>) -> StreamEnd {
        let (stack, path) = (self.clone(), path.to_owned());
        let end = async move {
            tokio::select! {
                biased;
                Some(()) = OptionFuture::from(deadline.map(|at| sleep_until(at.0))) => fault::deadline_exceeded(),
                () = stack.draining.cancelled(), if kind == Kind::Grpc => draining_status(),
                Some(()) = OptionFuture::from(peer.ending.as_ref().map(CancellationToken::cancelled)) => {
                    connection_ends_status()
                }
                status = stack.not_allowed_any_more(&peer.identity, &path) => status,
            }
        };
        end.boxed().shared()
    }

    async fn not_allowed_any_more(&self, caller: &PeerIdentity, path: &str) -> Status {
        match self.served(path) {
            Ok(Served { audience, .. }) => self.authorization.not_allowed_any_more(audience, caller, path).await,
            // No call of it has begun.
            Err(_) => pending().await,
        }
    }

    fn shown_instance(&self) -> &str {
        self.instance.to_str().unwrap_or_default()
    }
}

/// The size of a request's headers.
fn request_size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let pseudo = [
        (":method", request.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", |authority| authority.as_str())),
        (":path", uri.path_and_query().map_or("", |path| path.as_str())),
    ];
    let pseudo = pseudo.map(|(name, value)| (name, value.as_bytes()));
    header_list_size(pseudo.into_iter().chain(fields(request.headers())))
}

/// An answer for a peer that does not speak gRPC.
fn plain(status: StatusCode) -> Box<Response<Body>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Box::new(response)
}

fn span(path: &str, caller: &PeerIdentity) -> Span {
    tracing::debug_span!(
        "call",
        path,
        caller = caller.name(),
        otel.name = path.trim_start_matches('/'),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        rpc.response.status_code = tracing::field::Empty
    )
}

/// Whether a call that ends so is an error of the server's, as OpenTelemetry has it; the others are their callers'.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn refused(refusal: Refusal, message: impl Into<String>) -> Box<Response<Body>> {
    Box::new(fault::refused(refusal, message))
}
