//! The caller's request stream, recorded as it is sent, up to a bound: within it, it can be sent again.
//!
//! It is polled inside of the connection's task, which other calls share: a panic in it is caught here, and breaks its own
//! call only.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

/// Bytes of a request stream that are kept to be sent again. Most calls fail early, when little of their stream has left; and
/// as many calls may be under way as there is memory for.
pub(super) const MAX_RECORDED: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Recording {
    body: Body,
    /// What has been read, from the start; once `open` is false only what an attempt has yet to send.
    sent: Vec<Bytes>,
    size: usize,
    /// Whether all that was read is in `sent`.
    open: bool,
}

impl Recording {
    /// A recording of a stream whose first messages have been read already.
    pub(super) fn new(body: Body, sent: Vec<Bytes>) -> Self {
        let size = sent.iter().map(Bytes::len).sum();
        Self { body, sent, size, open: true }
    }

    /// Whether the stream can be sent again from its start.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Nothing is recorded from here on.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// The frame at `next`, from what was recorded or from the caller.
    pub(super) fn poll_next(
        &mut self,
        next: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.sent.get(*next) {
            *next += 1;
            // What was read ahead may be more than is kept.
            self.open &= self.size <= MAX_RECORDED;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        if !self.open && !self.sent.is_empty() {
            self.sent = Vec::new();
            *next = 0;
        }
        let frame = std::task::ready!(poll_caller(&mut self.body, context));
        if let Some(Ok(frame)) = &frame {
            self.record(frame, next);
        }
        Poll::Ready(frame)
    }

    fn record(&mut self, frame: &Frame<Bytes>, next: &mut usize) {
        let Some(message) = frame.data_ref().filter(|_| self.open) else { return };
        self.size += message.len();
        if self.size > MAX_RECORDED {
            self.open = false;
        } else {
            self.sent.push(message.clone());
            *next += 1;
        }
    }
}

/// Polls the caller's own code. Its panic becomes an error of its stream, which is not polled again.
pub(super) fn poll_caller(body: &mut Body, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    // Unwind-safe: what the panic left behind is not seen again, since the body is replaced.
    catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *body).poll_frame(context))).unwrap_or_else(|_| {
        *body = Body::new(Panicked);
        Poll::Ready(Some(Err(panicked())))
    })
}

/// The panic's message was printed by its hook, and is not passed on.
fn panicked() -> Status {
    Status::internal("the caller's request stream panicked")
}

/// In place of a body that panicked: must it be polled for another attempt, then it fails in the same way.
struct Panicked;

impl HttpBody for Panicked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(Some(Err(panicked())))
    }
}
