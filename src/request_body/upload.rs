//! A request stream under way: which attempt sends it, and its premature end.
//!
//! When the answer ends, or its reader goes, before the stream has ended, the stream is reset, with CANCEL or, if the server has
//! said its status, with NO_ERROR (PROTOCOL-HTTP2): nothing more is sent, and the server learns of it. hyper would go on.
//!
//! What hyper has of the stream is its body, which it does not look at while flow control holds the stream up. So the
//! connection watches the part of it that sends the stream, and drops it then: h2 resets the stream, always with CANCEL. hyper
//! does not say which of its parts sends which stream; [`JustBegun`] does.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::Reason;
use http_body::Frame;
use parking_lot::Mutex;
use tonic::Status;

use super::recording::Recording;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The request stream of a call. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct RequestStream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Locked while the caller's own code is polled, which may read or drop the answer of the same call: that must not need this
    /// lock. Where both are locked, this one is the first.
    recording: Mutex<Recording>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the attempt that may read on.
    attempt: u32,
    /// Why it may not.
    stopped: Option<Reason>,
    /// The part of a connection that sends the stream.
    sender: Option<Waker>,
    /// Why the caller's stream broke off.
    broken: Option<Status>,
}

impl RequestStream {
    pub(super) fn new(recording: Recording) -> Self {
        Self(Arc::new(Shared { recording: Mutex::new(recording), state: Mutex::default() }))
    }

    /// Whether it can be sent again from its start.
    pub(super) fn is_open(&self) -> bool {
        self.0.recording.lock().is_open()
    }

    /// Nothing of it is recorded from here on.
    pub(super) fn close(&self) {
        self.0.recording.lock().close();
    }

    /// Why the caller's stream broke off, if it did; returned once.
    pub(super) fn broken(&self) -> Option<Status> {
        self.0.state.lock().broken.take()
    }

    /// For the next attempt; attempts before it can read no more.
    pub(super) fn next_attempt(&self) -> AttemptStream {
        // An attempt that is just reading on has recorded it by then.
        let _recording = self.0.recording.lock();
        let mut state = self.0.state.lock();
        state.attempt += 1;
        state.stopped = None;
        AttemptStream { stream: self.clone(), attempt: state.attempt }
    }

    /// What the answer to the latest attempt holds of its request.
    pub(super) fn upload(&self) -> Upload {
        let attempt = self.0.state.lock().attempt;
        Upload(Some(AttemptStream { stream: self.clone(), attempt }))
    }
}

/// A request stream as one attempt sends it.
#[derive(Debug)]
pub(crate) struct AttemptStream {
    stream: RequestStream,
    attempt: u32,
}

impl AttemptStream {
    /// The frame at `next`. Fails with the caller's status, or with an error of h2 whose reason becomes that of a RST_STREAM.
    pub(super) fn poll_next(
        &self,
        next: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Shared { recording, state } = &*self.stream.0;
        let mut recording = recording.lock();
        if let Some(reason) = self.end(&state.lock()) {
            return Poll::Ready(Some(Err(h2::Error::from(reason).into())));
        }
        let frame = recording.poll_next(next, context);
        if let Poll::Ready(Some(Err(status))) = &frame {
            state.lock().broken = Some(status.clone());
        }
        frame.map_err(BoxError::from)
    }

    /// Waits until the stream is to be reset.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<Reason> {
        let mut state = self.stream.0.state.lock();
        if let Some(reason) = self.end(&state) {
            return Poll::Ready(reason);
        }
        match &mut state.sender {
            Some(sender) => sender.clone_from(context.waker()),
            None => state.sender = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn end(&self, state: &State) -> Option<Reason> {
        if state.attempt == self.attempt { state.stopped } else { Some(Reason::CANCEL) }
    }
}

/// A request stream as its answer sees it: it is stopped when that ends first.
#[derive(Debug)]
pub(crate) struct Upload(Option<AttemptStream>);

impl Upload {
    /// For a request that was sent as a whole: there is nothing to stop.
    pub(super) fn whole() -> Self {
        Self(None)
    }

    /// Why the caller's stream broke off, if it did; returned once.
    pub(crate) fn broken(&self) -> Option<Status> {
        self.0.as_ref().and_then(|sent| sent.stream.broken())
    }

    /// Sends nothing more, and resets the stream with `reason` if it has not ended.
    pub(crate) fn stop(&mut self, reason: Reason) {
        let Some(sent) = self.0.take() else { return };
        let mut state = sent.stream.0.state.lock();
        if state.attempt == sent.attempt {
            state.stopped = Some(reason);
            let sender = state.sender.take();
            drop(state);
            // Behind the lock: the connection may look at once.
            sender.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.stop(Reason::CANCEL);
    }
}

/// The request stream that one connection has just begun with. hyper polls a new body once, and if it is pending, makes a part of
/// it next, in the same turn: the part is this stream's.
#[derive(Clone, Debug, Default)]
pub(crate) struct JustBegun(Arc<Mutex<Weak<AttemptStream>>>);

impl JustBegun {
    pub(super) fn set(&self, stream: &Arc<AttemptStream>) {
        *self.0.lock() = Arc::downgrade(stream);
    }

    /// The stream, unless its body is gone: it has ended then, and the next part is not its.
    pub(crate) fn take(&self) -> Option<Arc<AttemptStream>> {
        std::mem::take(&mut *self.0.lock()).upgrade()
    }
}
