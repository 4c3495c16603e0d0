//! One connection as calls use it.

use std::{fmt, sync::Arc, time::SystemTime};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2::SendRequest},
};

use super::{Connection, DeferredDrop, stream_limit::StreamLimit};
use crate::{
    endpoint::peer::Peer,
    request_body::{AttemptBody, upload::JustBegun},
};

/// A handle on an open connection. A cheap clone.
#[derive(Clone)]
pub(crate) struct ConnectionHandle {
    sender: SendRequest<AttemptBody>,
    shared: Arc<Shared>,
}

/// What the handles of a connection share with its task.
pub(super) struct Shared {
    /// Where the connection leads: one of the endpoint's addresses.
    pub(super) peer: Peer,
    /// When the certificate expires that the server has shown; `None`: in plain text.
    pub(super) certificate_expires: Option<SystemTime>,
    pub(super) ended: DeferredDrop,
    pub(super) stream_limit: StreamLimit,
    pub(super) just_begun: JustBegun,
}

impl ConnectionHandle {
    pub(super) fn new(sender: SendRequest<AttemptBody>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// Where answers go that were read to their end.
    pub(crate) fn ended(&self) -> &DeferredDrop {
        &self.shared.ended
    }

    /// Sends a request. One that never left comes back with the error.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<AttemptBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<AttemptBody>>> {
        request.body_mut().sent_by(&self.shared.just_begun);
        self.sender.try_send_request(request).await
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.peer(), f)
    }
}

impl Connection for ConnectionHandle {
    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn stream_limit(&self) -> Option<u32> {
        self.shared.stream_limit.get()
    }

    fn certificate_expires(&self) -> Option<SystemTime> {
        self.shared.certificate_expires
    }
}
