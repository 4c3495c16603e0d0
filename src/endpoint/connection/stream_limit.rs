//! How many calls a server allows on a connection at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The limit that the server named last, in its SETTINGS.
#[derive(Debug, Default)]
pub(super) struct StreamLimit(AtomicUsize);

impl StreamLimit {
    /// `None`: it allows any number.
    pub(super) fn get(&self) -> Option<u32> {
        u32::try_from(self.0.load(Ordering::Relaxed)).ok()
    }

    pub(super) fn set(&self, limit: usize) {
        self.0.store(limit, Ordering::Relaxed);
    }
}
