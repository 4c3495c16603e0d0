//! A response's body: holds what the call holds until it has been read, and gives its errors their gRPC code.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::{Code, Status};

use crate::{
    channel::error::{EndpointError, Failure, deadline_exceeded},
    endpoint::{Outcome, PendingCall, connection::deferred_drop::Spent, peer::Peer},
    headers::drop_unreadable_details,
    rpc::code_in,
};

/// The body of an answer. Its end, its error or its drop ends the call.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    /// What has been read ahead.
    first: Option<Frame<Bytes>>,
    /// `None` when the call is over.
    open: Option<Open>,
    peer: Peer,
}

#[derive(Debug)]
struct Open {
    incoming: Incoming,
    call: PendingCall,
    expiry: Option<Pin<Box<Sleep>>>,
    spent: Spent,
}

impl ResponseBody {
    pub(crate) fn new(incoming: Incoming, call: PendingCall, peer: Peer, spent: Spent) -> Self {
        Self { first: None, open: Some(Open { incoming, call, expiry: None, spent }), peer }
    }

    /// Waits for the first frame, and keeps it for the reader.
    pub(crate) async fn read_ahead(&mut self) -> Result<(), EndpointError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.call.promised(true);
        let frame = poll_fn(|context| open.poll_incoming(&self.peer, context)).await;
        open.call.promised(false);
        self.first = frame.transpose()?;
        Ok(())
    }

    /// The trailers, if it is known that no message comes before them.
    pub(crate) fn trailers_only(&self) -> Option<&HeaderMap> {
        self.first.as_ref()?.trailers_ref()
    }

    /// Ends the call at its deadline.
    #[must_use]
    pub(crate) fn until(mut self, expiry: Pin<Box<Sleep>>) -> Self {
        if let Some(open) = &mut self.open {
            open.expiry = Some(expiry);
        }
        self
    }
}

/// What the code of an answer says about its endpoint.
pub(crate) fn outcome(code: Code) -> Outcome {
    match code {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss => Outcome::Failed,
        // A quota, or a server without room: another may do better, but it is no failure of this one.
        Code::ResourceExhausted => Outcome::Refused,
        // The caller's matter, or the business's.
        _ => Outcome::Served,
    }
}

impl Open {
    fn poll_frame(&mut self, peer: &Peer, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(expiry) = &mut self.expiry
            && expiry.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(deadline_exceeded("", Some(peer)))));
        }
        let frame = ready!(self.poll_incoming(peer, context));
        Poll::Ready(frame.map(|frame| frame.map_err(EndpointError::into_status)))
    }

    fn poll_incoming(
        &mut self,
        peer: &Peer,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.inspect(|frame| self.judge(frame)).map_err(|source| {
                self.call.failed_late();
                EndpointError { peer: peer.clone(), failure: Failure::of(&source), source }
            })
        }))
    }

    fn judge(&mut self, frame: &Frame<Bytes>) {
        match frame.trailers_ref().and_then(code_in).map(outcome) {
            Some(Outcome::Failed) => self.call.failed_late(),
            Some(Outcome::Served | Outcome::Refused) | None => {}
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let mut frame = match (this.first.take(), &mut this.open) {
            (Some(first), _) => Some(Ok(first)),
            (None, Some(open)) => ready!(open.poll_frame(&this.peer, context)),
            (None, None) => None,
        };
        // Nothing comes after trailers or an error: an unread end must not keep the call pending.
        let over = frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        if let Some(Open { incoming, spent, .. }) = this.open.take_if(|_| over)
            // A call that was cut short is reset by the drop of what is left of it.
            && !matches!(frame, Some(Err(_)))
        {
            spent.keep(incoming);
        }
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            drop_unreadable_details(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.open.as_ref().is_none_or(|open| open.incoming.is_end_stream())
    }
}
