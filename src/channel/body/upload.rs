//! A request stream under way: which attempt sends it, and its end before its time.
//!
//! When the answer ends, or its reader goes, before the stream has ended, the stream is reset, with CANCEL or, if the server has
//! said its status, with NO_ERROR (PROTOCOL-HTTP2): nothing more is sent, and the server learns of it. hyper would go on.
//!
//! What hyper has of the stream is its body, which it does not look at while flow control holds the stream up. So the
//! connection watches the part of it that sends the stream, and drops it then: h2 resets the stream, always with CANCEL. hyper
//! does not say which of its parts sends which stream; the [`Desk`] does.

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
pub(crate) struct RequestStream(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    recording: Recording,
    /// The number of the attempt that may read on.
    attempt: u32,
    /// Why it may not.
    stopped: Option<Reason>,
    /// The part of a connection that sends the stream.
    sender: Option<Waker>,
}

impl RequestStream {
    pub(super) fn new(recording: Recording) -> Self {
        Self(Arc::new(Mutex::new(State { recording, attempt: 0, stopped: None, sender: None })))
    }

    /// Looks at what is recorded of it, or changes that.
    pub(super) fn recording<T>(&self, look: impl FnOnce(&mut Recording) -> T) -> T {
        look(&mut self.0.lock().recording)
    }

    /// For the next attempt; attempts before it can read no more.
    pub(super) fn next_attempt(&self) -> Turn {
        let mut state = self.0.lock();
        state.attempt += 1;
        state.stopped = None;
        Turn { stream: self.clone(), attempt: state.attempt }
    }

    /// What the answer to the latest attempt holds of its request.
    pub(super) fn upload(&self) -> Upload {
        let attempt = self.0.lock().attempt;
        Upload(Some(Turn { stream: self.clone(), attempt }))
    }
}

/// A request stream as one attempt sends it.
#[derive(Debug)]
pub(crate) struct Turn {
    stream: RequestStream,
    attempt: u32,
}

impl Turn {
    /// The frame at `next`. Fails with the caller's status, or with an error of h2 whose reason becomes that of a RST_STREAM.
    pub(super) fn poll_next(
        &self,
        next: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.stream.0.lock();
        match self.end(&state) {
            Some(reason) => Poll::Ready(Some(Err(h2::Error::from(reason).into()))),
            None => state.recording.poll_next(next, context).map_err(BoxError::from),
        }
    }

    /// Waits until the stream is to be reset.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<Reason> {
        let mut state = self.stream.0.lock();
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
pub(crate) struct Upload(Option<Turn>);

impl Upload {
    /// Of a request that was sent as a whole: there is nothing to stop.
    pub(super) fn whole() -> Self {
        Self(None)
    }

    /// Why the caller's own stream broke off, if it did.
    pub(crate) fn broken(&self) -> Option<Status> {
        self.0.as_ref().and_then(|turn| turn.stream.recording(Recording::broken))
    }

    /// Sends nothing more, and resets the stream with `reason` if it has not ended.
    pub(crate) fn stop(&mut self, reason: Reason) {
        let Some(turn) = self.0.take() else { return };
        let mut state = turn.stream.0.lock();
        if state.attempt == turn.attempt {
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

/// Where a body that hyper polls for the first time leaves its stream, for the part that hyper makes of it next: if the body
/// has more to send, hyper does so in the same breath. One for each connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk(Arc<Mutex<Weak<Turn>>>);

impl Desk {
    pub(super) fn leave(&self, turn: &Arc<Turn>) {
        *self.0.lock() = Arc::downgrade(turn);
    }

    /// The stream that was left, unless it has ended since, and its body is gone.
    pub(crate) fn take(&self) -> Option<Arc<Turn>> {
        std::mem::take(&mut *self.0.lock()).upgrade()
    }
}
