//! The connection of an endpoint: made again and again, and driven by one task.
//!
//! - [`connect`]: keeps an endpoint connected;
//! - [`connector`]: how a connection is made, the one hook for TCP and simulated networks, and TLS over either;
//! - [`drive`]: the task of one connection;
//! - [`handle`]: what calls hold of it;
//! - [`write_buffer`], [`coalesce_wakes`], [`deferred_drop`]: three savings of system calls and wake-ups, each with its figure.

pub(crate) mod connect;
pub(crate) mod connector;
pub(crate) mod drive;
pub(crate) mod handle;
pub(crate) mod keepalive;

mod coalesce_wakes;
mod deferred_drop;
mod stream_limit;
mod write_buffer;

use std::time::SystemTime;

pub(crate) use deferred_drop::DeferredDrop;

/// What is needed of a connection here: a cheap handle to send calls with.
pub(crate) trait Connection: Clone + Send + 'static {
    /// Whether it takes no more calls. Once it says so, it always does.
    fn is_closed(&self) -> bool;

    /// How many calls the server allows on it at a time; `None`: any number.
    fn stream_limit(&self) -> Option<u32>;

    /// When the certificate expires that the server has shown; `None`: it has shown none.
    fn certificate_expires(&self) -> Option<SystemTime>;
}
