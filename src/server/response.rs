//! The body of a streaming answer: it holds the call's place, ends at its deadline, and survives a panic.

use std::{
    future::Future as _,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body};

use super::{fault, places::Place};
use crate::deadline::{self, Deadline};

/// The body of a streaming answer.
pub(super) struct StreamBody {
    inner: Body,
    deadline: Option<(Deadline, Pin<Box<Sleep>>)>,
    /// For streams that do not know of the drain themselves (health, reflection).
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
    _place: Place,
}

impl StreamBody {
    pub(super) fn new(
        inner: Body,
        place: Place,
        deadline: Option<Deadline>,
        draining: Option<WaitForCancellationFutureOwned>,
    ) -> Self {
        let deadline = deadline.map(|deadline| (deadline, Box::pin(tokio::time::sleep_until(deadline.0))));
        Self { inner, deadline, draining: draining.map(Box::pin), ended: false, _place: place }
    }

    /// Asks the handler's stream, as part of its call.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let inner = Pin::new(&mut self.inner);
        let polled = catch_unwind(AssertUnwindSafe(|| match &self.deadline {
            Some((deadline, _)) => deadline::scope_sync(*deadline, || inner.poll_frame(context)),
            None => inner.poll_frame(context),
        }));
        polled.unwrap_or_else(|panic| Poll::Ready(Some(Err(fault::panicked(panic.as_ref())))))
    }

    /// Why the stream ends now, although its handler has more to say.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if let Some((_, timer)) = &mut self.deadline
            && timer.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(fault::deadline_exceeded());
        }
        match &mut self.draining {
            Some(draining) => draining.as_mut().poll(context).map(|()| fault::draining_status()),
            None => Poll::Pending,
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
        let cut = match self.poll_cut(context) {
            Poll::Ready(status) => status,
            Poll::Pending => match self.poll_inner(context) {
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(Some(Ok(mut frame))) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        fault::unclaim(trailers);
                        fault::correct(trailers);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                other @ (Poll::Ready(None) | Poll::Pending) => return other,
            },
        };
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(fault::trailers(&cut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
