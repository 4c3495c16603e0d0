//! A server's limits: every bound that a peer can reach, with its reason.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// The bounds of one server. The defaults fit a service of many small calls; each field names the threat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; one more is closed at once, so that its client goes elsewhere. Default 4096: far above one
    /// connection per client process, and below the usual limit on open files of a service.
    pub connections: usize,
    /// Connections at a time that have not begun: their peers have shown no identity yet, or said nothing. One more closes the oldest
    /// of them. Default 1024: what a server's CPU has through in less than a second, and no place of those that have begun.
    pub handshakes: usize,
    /// Streams at a time on one connection (HTTP/2's SETTINGS_MAX_CONCURRENT_STREAMS); a client queues what is more.
    /// Default 1024: hyper's 200 throttles a busy client that has one connection per endpoint, without a word.
    pub streams_per_connection: u32,
    /// Unary calls at a time over all connections; one more is refused as `overloaded`. Default 4096: more waiting work
    /// than that only adds latency, since the write side takes 512 at a time. Health and reflection, which no rules protect, have a
    /// quarter as many for themselves, and of streams too.
    pub concurrent_calls: usize,
    /// Streaming calls at a time over all connections, apart from the unary ones because they live long; one more is
    /// refused as `overloaded`. Default 16,384.
    pub concurrent_streams: usize,
    /// A unary call is cut with DEADLINE_EXCEEDED after this, whatever its own deadline, so that a peer that never ends
    /// its request does not hold its place for ever. A streaming answer must have begun by then. Default 60 s.
    pub unary_time: Duration,
    /// Bytes of one request message, also once it is inflated; a larger one is RESOURCE_EXHAUSTED. Default 4 MiB, as everywhere in gRPC. To raise
    /// it, raise tonic's `max_decoding_message_size` of the service as well.
    pub message_size: usize,
    /// Bytes of a request's headers, as HTTP/2 counts them; a call with more is RESOURCE_EXHAUSTED, and the other calls of its
    /// connection go on. Default 16 KiB. Far beyond it, from about 340 KiB on, HTTP/2 itself ends the connection.
    pub header_list_size: u32,
    /// From accepting a connection to its HTTP/2 preface and settings; a peer that takes longer is cut. Default 5 s: a
    /// silent peer must not hold a connection's place.
    pub handshake_time: Duration,
    /// A PING is sent after this long without a sign of life, on idle connections too. Default 10 s.
    pub keepalive_interval: Duration,
    /// A PING unanswered for this long ends the connection. Default 5 s: a peer that vanished is gone after 15 s, and so is
    /// one that has read nothing for that long.
    pub keepalive_timeout: Duration,
    /// HTTP/2 window of a stream, in bytes. Default 1 MiB: HTTP/2's own 64 KiB stalls a message of the largest size 64
    /// times.
    pub stream_window: u32,
    /// HTTP/2 window of a connection, in bytes: what one peer can make us buffer of its requests. Default 4 MiB, one largest
    /// message.
    pub connection_window: u32,
    /// Bytes of an answer that wait for a peer that does not read, for each stream; its handler waits with what is more, but
    /// for what is being encoded. Default 64 KiB: hyper's 400 KiB, times the streams of a connection, are 400 MiB for one such peer.
    pub send_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u32 = 1024 * KIB;
        Self {
            connections: 4096,
            handshakes: 1024,
            streams_per_connection: 1024,
            concurrent_calls: 4096,
            concurrent_streams: 16_384,
            unary_time: Duration::from_secs(60),
            message_size: 4 * MIB as usize,
            header_list_size: 16 * KIB,
            handshake_time: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            stream_window: MIB,
            connection_window: 4 * MIB,
            send_buffer: 64 * KIB as usize,
        }
    }
}

/// The calls that may run at a time: one that gets no permit is turned away at once.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) calls: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
}

impl Places {
    /// Of the services of a user and of the mesh.
    pub(super) fn new(limits: &Limits) -> Self {
        Self { calls: permits(limits.concurrent_calls), streams: permits(limits.concurrent_streams) }
    }

    /// Of health and reflection.
    pub(super) fn open(limits: &Limits) -> Self {
        let quarter = |limit: usize| permits((limit / 4).max(1));
        Self { calls: quarter(limits.concurrent_calls), streams: quarter(limits.concurrent_streams) }
    }
}

/// As many as `limit` says.
pub(super) fn permits(limit: usize) -> Arc<Semaphore> {
    // A semaphore refuses to have more, and no server can need them.
    Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_a_connection_are_as_many_as_the_readme_says() {
        let readme = include_str!("../../README.md");
        let row = readme.lines().find(|line| line.starts_with("| streams on a connection |")).expect("a row for them");
        assert_eq!((Limits::default().streams_per_connection, row.contains("| 1,024 |")), (1024, true));
    }
}
