//! SIGINT and SIGTERM: the first one drains, the second one ends the process.

use std::{io, sync::OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of the first signal.
static FIRST: OnceLock<u8> = OnceLock::new();

/// The exit code of a process that the first signal has ended before it was done.
pub(super) fn exit_code() -> u8 {
    FIRST.get().copied().unwrap_or(1)
}

/// What is said at the first signal: a server logs it, a program that has something to stop prints it.
pub const STOPPING: &str = "stopping: calls in progress may finish; a second signal stops at once";

/// A token that the first signal cancels, after `say`. To be called once in a process, within its runtime, which ends the task that
/// waits for signals.
pub(super) fn shutdown(say: impl FnOnce() + Send + 'static) -> io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // The shell's convention: 128 and the signal's number.
    let mut code = async move || {
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        }
    };
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        // Set already: `main` runs once in a process.
        let _ = FIRST.set(code().await);
        say();
        first.cancel();
        std::process::exit(code().await.into());
    });
    Ok(token)
}
