//! Which messages of a request were compressed: what the compression cases ask a server, and tonic does not tell a handler.
//! A tower layer, as a user's own would be.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::{Status, body::Body};
use tower::Service;

/// A message begins with its flag and its length.
const PREFIX: usize = 5;

/// The flags of the messages that have arrived and were not asked for yet, an extension of the request.
#[derive(Clone, Debug, Default)]
pub struct CompressedFlags(Arc<Mutex<VecDeque<bool>>>);

impl CompressedFlags {
    /// Whether the next message was compressed. `None`: it has not arrived.
    pub fn next(&self) -> Option<bool> {
        self.0.lock().pop_front()
    }
}

/// Puts [`CompressedFlags`] into each request.
#[derive(Clone, Copy, Debug)]
pub struct ReadFlags;

impl<S> tower::Layer<S> for ReadFlags {
    type Service = ReadFlagsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReadFlagsService(inner)
    }
}

/// The service that [`ReadFlags`] makes.
#[derive(Clone, Debug)]
pub struct ReadFlagsService<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for ReadFlagsService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let flags = CompressedFlags::default();
        let (mut parts, inner) = request.into_parts();
        parts.extensions.insert(flags.clone());
        let body = FlaggedBody { inner, flags, prefix: [0; PREFIX], prefix_read: 0, message_left: 0 };
        self.0.call(Request::from_parts(parts, Body::new(body)))
    }
}

/// A request's body, whose messages are looked at as they pass.
struct FlaggedBody {
    inner: Body,
    flags: CompressedFlags,
    prefix: [u8; PREFIX],
    prefix_read: usize,
    message_left: usize,
}

impl FlaggedBody {
    fn read(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.message_left > 0 {
                let skipped = data.len().min(self.message_left);
                self.message_left -= skipped;
                data = &data[skipped..];
                continue;
            }
            self.prefix[self.prefix_read] = data[0];
            self.prefix_read += 1;
            data = &data[1..];
            if self.prefix_read == PREFIX {
                let [flag, length @ ..] = self.prefix;
                self.flags.0.lock().push_back(flag != 0);
                self.message_left = u32::from_be_bytes(length) as usize;
                self.prefix_read = 0;
            }
        }
    }
}

impl HttpBody for FlaggedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.read(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
