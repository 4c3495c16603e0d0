//! The bodies of answers. A stream's holds the call's permit, ends when it must, and survives a panic; that of a unary call
//! tells how the call ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status, body::Body};

use super::fault;
use crate::{
    deadline::{self, Deadline},
    rpc::{Timed, code_in, code_of},
};

/// The body of a streaming answer.
pub(super) struct StreamBody {
    inner: Body,
    deadline: Option<Deadline>,
    end: StreamEnd,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// Why a stream ends although its handler has more to say, or its caller, once it must. Requests and answers share it: hyper does not
/// ask for an answer while its peer does not read.
pub(super) type StreamEnd = Shared<BoxFuture<'static, Status>>;

impl StreamBody {
    pub(super) fn new(inner: Body, permit: OwnedSemaphorePermit, deadline: Option<Deadline>, end: StreamEnd) -> Self {
        Self { inner, deadline, end, ended: false, _permit: permit }
    }

    /// Asks the handler's stream, as part of its call.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let inner = &mut self.inner;
        match &self.deadline {
            Some(deadline) => deadline::scope_sync(*deadline, || poll_caught(inner, context)),
            None => poll_caught(inner, context),
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // The cut first: a stream that always has more to say must end as well.
        let cut = match self.end.poll_unpin(context) {
            Poll::Ready(status) => status,
            Poll::Pending => match self.poll_inner(context) {
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(Some(Ok(mut frame))) => {
                    frame.trailers_mut().into_iter().for_each(sanitize);
                    return Poll::Ready(Some(Ok(frame)));
                }
                other @ (Poll::Ready(None) | Poll::Pending) => return other,
            },
        };
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers_of(&cut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The body of a unary answer that has one.
pub(super) struct UnaryBody {
    inner: Body,
    /// `None`: it is known how the call ends.
    timed: Option<Timed>,
    ended: bool,
}

impl UnaryBody {
    /// Counts an answer that is ready: now, if its headers say how the call ends, or when its trailers do.
    pub(super) fn counted(response: Response<Body>, mut timed: Timed) -> Response<Body> {
        timed.answered();
        match code_of(response.status(), response.headers(), None) {
            Some(code) => {
                timed.ended(code);
                response
            }
            None => response.map(|inner| Body::new(Self { inner, timed: Some(timed), ended: false })),
        }
    }
}

impl http_body::Body for UnaryBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut frame = match ready!(poll_caught(&mut self.inner, context)) {
            // A user's layer, or a service that passes on another's answer; a reset instead of a status would tell the caller nothing.
            Some(Err(status)) => {
                self.ended = true;
                Some(Frame::trailers(trailers_of(&status)))
            }
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        let code = match &mut frame {
            Some(frame) => frame.trailers_mut().map(|trailers| {
                sanitize(trailers);
                code_in(trailers).unwrap_or(Code::Unknown)
            }),
            None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(mut timed) = self.timed.take()
        {
            timed.ended(code);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Asks a body, of which a panic is an error.
fn poll_caught(body: &mut Body, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(context)));
    polled.unwrap_or_else(|panic| Poll::Ready(Some(Err(fault::panicked(panic.as_ref())))))
}

/// The trailers of a body that has failed. Its status may be that of an outbound call on which the handler depended.
fn trailers_of(status: &Status) -> HeaderMap {
    let mut trailers = fault::trailers(status);
    sanitize(&mut trailers);
    trailers
}

/// Trailers as a handler has made them, as they may leave the server.
fn sanitize(trailers: &mut HeaderMap) {
    fault::strip_reserved(trailers);
    fault::correct(trailers);
}
