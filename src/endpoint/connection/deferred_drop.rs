//! Streams that have ended, kept until their connection's task runs next.
//!
//! h2 wakes a connection whenever the last handle on one of its streams is dropped. The caller of an answered call mostly
//! makes another one, on another connection: two tasks would be ready at once, and tokio would wake another thread for one
//! that has nothing to do. That was a sixth of the client's CPU at one call in flight. So what is left of an answer goes back to its connection, which drops it when it runs next.

use hyper::body::Incoming;
use parking_lot::Mutex;

/// The ended streams of one connection. They are as many as its calls under way at most: each call gives it a turn.
#[derive(Debug)]
pub(crate) struct DeferredDrop(Mutex<Option<Vec<Incoming>>>);

impl DeferredDrop {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Takes an answer that was read to its end.
    pub(crate) fn keep(&self, ended: Incoming) {
        let mut kept = self.0.lock();
        match kept.as_mut() {
            Some(kept) => kept.push(ended),
            None => {
                drop(kept);
                drop(ended);
            }
        }
    }

    /// For the connection, at its turn.
    pub(crate) fn clear(&self) {
        let mut kept = self.0.lock();
        let ended = kept.as_mut().map(std::mem::take);
        // Behind the lock: a drop wakes.
        drop(kept);
        drop(ended);
    }

    /// For a connection that takes no more calls: it waits for the last of its streams, and must be woken by its end.
    pub(crate) fn close(&self) {
        let ended = self.0.lock().take();
        drop(ended);
    }
}
