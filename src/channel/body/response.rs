//! A response's body: keeps the call's resources until it has been read, and gives its errors their gRPC code.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::Reason;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tonic::Status;

use crate::{
    channel::{
        classify::{Failure, Verdict},
        error::{CallError, EndpointError},
        layers::timeout::Timer,
    },
    deadline::Deadline,
    endpoint::{Blame, Endpoint, InFlight, connection::handle::ConnectionHandle},
    headers::drop_unreadable_details,
    request_body::upload::Upload,
};

/// The body of an answer. Its end, its error or its drop ends the call.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    /// What has been read ahead.
    first: Option<Frame<Bytes>>,
    /// `None` when the call is over.
    open: Option<Open>,
    endpoint: Arc<Endpoint>,
}

#[derive(Debug)]
struct Open {
    incoming: Incoming,
    in_flight: InFlight,
    connection: ConnectionHandle,
    upload: Upload,
    timer: Timer,
}

impl ResponseBody {
    /// The body of an answer that came on `connection`.
    pub(crate) fn new(
        incoming: Incoming,
        in_flight: InFlight,
        connection: ConnectionHandle,
        upload: Upload,
        timer: Timer,
    ) -> Self {
        let endpoint = in_flight.endpoint().clone();
        Self { first: None, open: Some(Open { incoming, in_flight, connection, upload, timer }), endpoint }
    }

    /// Reads no more of it: its request stream is reset with `reason`, if it has not ended.
    pub(crate) fn end(&mut self, reason: Reason) {
        if let Some(mut open) = self.open.take() {
            open.upload.stop(reason);
        }
    }

    /// The endpoint that it came from.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Waits for the first frame, and keeps it for the reader.
    pub(crate) async fn read_ahead(&mut self) -> Result<(), CallError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.in_flight.awaits_message(true);
        let frame = poll_fn(|context| open.poll_frame(context)).await;
        if !matches!(frame, Some(Err(CallError::DeadlineExceeded { .. }))) {
            open.in_flight.awaits_message(false);
        }
        self.first = frame.transpose()?;
        Ok(())
    }

    /// The answer is the call's: from here on only the deadline of the call itself holds.
    pub(crate) fn commit(&mut self, deadline: Option<Deadline>) {
        if let Some(open) = &mut self.open {
            open.timer.until_deadline(deadline);
        }
    }

    /// The trailers, if it is known that no message comes before them.
    pub(crate) fn trailers_only(&self) -> Option<&HeaderMap> {
        self.first.as_ref()?.trailers_ref()
    }
}

impl Open {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if self.timer.poll_expired(context).is_ready() {
            let peer = Some(self.connection.peer().clone());
            return Poll::Ready(Some(Err(CallError::DeadlineExceeded { service: String::new(), peer })));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.judge(trailers);
                }
                Some(Ok(frame))
            }
            Some(Err(source)) => Some(Err(match self.upload.broken() {
                // The endpoint has no part in it.
                Some(status) => CallError::Request(Box::new(status)),
                None => self.failed(Failure::of(&source), Some(source)),
            })),
            // hyper tells of RST_STREAM(NO_ERROR) as of an end.
            None if !self.incoming.is_end_stream() => Some(Err(self.failed(Failure::Reset(Reason::NO_ERROR), None))),
            None => Some(Err(self.failed(Failure::NoStatus, None))),
        })
    }

    fn judge(&mut self, trailers: &HeaderMap) {
        match Verdict::of_trailers(trailers).blame {
            Blame::Failed => self.in_flight.failed_late(),
            Blame::None | Blame::Refused => {}
        }
    }

    fn failed(&mut self, failure: Failure, source: Option<hyper::Error>) -> CallError {
        self.in_flight.failed_late();
        let (endpoint, peer) = (self.in_flight.endpoint().clone(), self.connection.peer().clone());
        CallError::Endpoint(EndpointError { endpoint, peer, failure, source })
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let mut frame = match (this.first.take(), &mut this.open) {
            (Some(first), _) => Some(Ok(first)),
            (None, Some(open)) => ready!(open.poll_frame(context)).map(|frame| frame.map_err(Status::from)),
            (None, None) => None,
        };
        // Nothing comes after trailers or an error: an unread end must not keep the call pending.
        let over = frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        if let Some(Open { incoming, connection, mut upload, .. }) = this.open.take_if(|_| over)
            // A call that was cut short is reset by the drop of what is left of it.
            && !matches!(frame, Some(Err(_)))
        {
            // In this order: a part that flow control holds up is dropped for the second, and must then be the last of its stream.
            connection.ended().keep(incoming);
            upload.stop(Reason::NO_ERROR);
        }
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            drop_unreadable_details(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.open.is_none()
    }
}
