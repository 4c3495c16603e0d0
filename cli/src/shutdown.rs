//! Signals that end a command: the first asks for it, the second does not wait.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// SIGINT and SIGTERM, from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from the system's default, which ends the process at once.
    pub(crate) fn take() -> Result<Self, Error> {
        let open = |kind| signal(kind).map_err(Error::Runtime);
        Ok(Self { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    /// Waits for the next signal. Cancel-safe: a signal that nobody waits for is kept for the next call.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
