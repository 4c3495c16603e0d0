//! Peers that break the protocol, or use it against us, frame by frame.

use std::time::Duration;

use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    task::JoinHandle,
};

use super::{probe::unary, *};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 4;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Far more than any bound that is tested lets through.
const ENDLESS: usize = 100_000;

/// A peer that writes what it likes.
struct Peer {
    out: WriteHalf<DuplexStream>,
    written: usize,
}

impl Peer {
    /// A peer that has said hello with these settings, and the other half of its connection.
    async fn hello(running: &Running, settings: &[u8]) -> (Self, ReadHalf<DuplexStream>) {
        let (incoming, out) = split(running.pipe().await);
        let mut peer = Self { out, written: 0 };
        peer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("read");
        peer.write(&frame(SETTINGS, 0, 0, settings)).await.expect("read");
        (peer, incoming)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).await?;
        self.written += bytes.len();
        Ok(())
    }

    /// Writes one after the other until the server no longer takes them.
    async fn flood(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            if soon(self.write(&frame)).await.is_err() {
                return;
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A call's headers in HPACK, without compression.
fn headers(method: &str) -> Vec<u8> {
    let path = format!("/meshwork.registry.v1.RegistryService/{method}");
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(&[0x01][..], "probe"), (&[0x04], &path), (&[0x0f, 0x10], "application/grpc")] {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend(value.as_bytes());
    }
    block
}

/// Opens streams, the `n`th of them with this call.
fn open(n: usize, method: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream_id(n), &headers(method))
}

fn open_and_reset(n: usize) -> Vec<u8> {
    [open(n, "Deregister"), frame(RST_STREAM, 0, stream_id(n), &8_u32.to_be_bytes())].concat()
}

fn stream_id(n: usize) -> u32 {
    u32::try_from(2 * n + 1).expect("a stream's id")
}

/// The errors with which a server ends things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    /// The connection.
    goaway: Option<u32>,
    /// The first stream that it reset.
    reset: Option<u32>,
}

/// Reads until the server closes.
fn read_to_the_end(mut incoming: ReadHalf<DuplexStream>) -> JoinHandle<End> {
    tokio::spawn(async move {
        let mut end = End::default();
        let mut head = [0; 9];
        while incoming.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if incoming.read_exact(&mut payload).await.is_err() {
                break;
            }
            let code = |at: usize| payload[at..at + 4].try_into().map(u32::from_be_bytes).ok();
            match head[3] {
                GOAWAY => end.goaway = end.goaway.or(code(4)),
                RST_STREAM => end.reset = end.reset.or(code(0)),
                _ => {}
            }
        }
        end
    })
}

async fn end(reading: JoinHandle<End>) -> End {
    soon(reading).await.expect("no panic")
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_resets_what_it_opens_is_cut_and_others_are_served() {
    let mut config = config();
    config.limits.streams_per_connection = 50;
    let running = run(config, |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let end_seen = read_to_the_end(incoming);
    // Many in one write, as the attack has it.
    peer.flood((0..ENDLESS / 100).map(|n| (n * 100..(n + 1) * 100).flat_map(open_and_reset).collect())).await;
    assert_eq!(end(end_seen).await.goaway, Some(ENHANCE_YOUR_CALM));
    running.client().await.deregister(unary("")).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn a_busy_client_that_gives_up_hundreds_of_calls_at_once_keeps_its_connection() {
    let running = run(config(), |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let end_seen = read_to_the_end(incoming);
    peer.write(&(0..500).flat_map(open_and_reset).collect::<Vec<_>>()).await.expect("read");
    // On a paused clock, this lasts until there is nothing left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!end_seen.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_ten_thousand_streams_is_cut_and_gives_back_their_places() {
    const STREAMS: usize = 10_000;
    let mut config = config();
    let allowed = config.limits.streams_per_connection as usize;
    config.limits.concurrent_calls = allowed;
    let running = run(config, |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let end_seen = read_to_the_end(incoming);
    peer.flood((0..STREAMS).map(|n| open(n, "Deregister"))).await;
    assert_eq!(
        end(end_seen).await.goaway,
        Some(ENHANCE_YOUR_CALM),
        "beyond {allowed} each is refused, and not for ever"
    );
    running.client().await.deregister(unary("")).await.expect("no place is taken any more");
}

#[tokio::test(start_paused = true)]
async fn a_header_block_without_an_end_is_cut() {
    let running = run(config(), |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let end_seen = read_to_the_end(incoming);
    let more = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &[0; 1024]));
    peer.flood([frame(HEADERS, 0, 1, &headers("Deregister"))].into_iter().chain(more.take(ENDLESS))).await;
    assert!(end(end_seen).await.goaway.is_some(), "with a reason");
    assert!(peer.written < 512 * 1024, "{} bytes were taken", peer.written);
    running.client().await.deregister(unary("")).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_within_a_header_block_is_noticed_by_keepalive() {
    let running = run(config(), |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let begin = Instant::now();
    peer.write(&frame(HEADERS, 0, 1, &headers("Deregister"))).await.expect("read");
    end(read_to_the_end(incoming)).await;
    assert!((14..=17).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_floods_and_does_not_read_is_not_queued_for_and_then_cut() {
    let requests =
        |kind, payload: &'static [u8]| std::iter::repeat_with(move || frame(kind, 0, 0, payload)).take(ENDLESS);
    for (what, frames) in [("PING", requests(PING, &[7; 8])), ("SETTINGS", requests(SETTINGS, &[0, 4, 0, 1, 0, 0]))] {
        let running = run(config(), |server| server);
        let (mut peer, _unread) = Peer::hello(&running, &[]).await;
        let begin = Instant::now();
        peer.flood(frames).await;
        assert!((14..=17).contains(&begin.elapsed().as_secs()), "{what}: {:?}", begin.elapsed());
        assert!(peer.written < 512 * 1024, "{what}: {} bytes were taken", peer.written);
        running.client().await.deregister(unary("")).await.expect("served");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_handler_reads_is_held_up_to_the_window_and_beyond_it_the_stream_is_reset() {
    let running = run(config(), |server| server);
    let (mut peer, incoming) = Peer::hello(&running, &[]).await;
    let end_seen = read_to_the_end(incoming);
    // Every request is answered, but its peer never makes room for the answers: then no more are read.
    peer.write(&open(0, "KeepAlive")).await.expect("read");
    let data = || frame(DATA, 0, stream_id(0), &[0; 16_000]);
    let frames = 2 * Limits::default().stream_window as usize / data().len();
    peer.flood(std::iter::repeat_with(data).take(frames)).await;
    assert_eq!(end(end_seen).await.reset, Some(FLOW_CONTROL_ERROR));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_not_made() {
    const STREAMS: usize = 20;
    // What is under way beside the buffers of the streams: in the pipe and in the connection's own buffer.
    const UNDER_WAY: usize = 256 * 1024;
    // What tonic encodes at once: messages up to 32 KiB, and the one that goes beyond.
    const ENCODED: usize = 32 * 1024 + probe::ENDLESS_MESSAGE;
    let running = run(config(), |server| server);
    // As large as windows can be: the peer asks for everything at once, and then reads nothing.
    let (mut peer, _unread) = Peer::hello(&running, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    peer.write(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())).await.expect("read");
    let request = prost::Message::encode_to_vec(&probe::stream_of("endless"));
    let mut message = vec![0, 0, 0, 0, u8::try_from(request.len()).expect("short")];
    message.extend(request);
    for n in 0..STREAMS {
        peer.write(&open(n, "Watch")).await.expect("read");
        peer.write(&frame(DATA, 1, stream_id(n), &message)).await.expect("read");
    }
    running.probe.until(|seen| seen.started == STREAMS).await;
    // On a paused clock, this lasts until there is nothing left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let made = running.probe.seen().endless_bytes;
    let bound = STREAMS * (Limits::default().send_buffer + ENCODED) + UNDER_WAY;
    assert!((UNDER_WAY / 4..bound).contains(&made), "{made} bytes were made that were never read");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_stream_that_never_ends_is_cut() {
    let running = run(config(), |server| server);
    let mut connection = running.connect().await.expect("the server answers");
    let request = http::Request::post("http://probe/meshwork.registry.v1.RegistryService/Watch")
        .header("content-type", "application/grpc");
    let never =
        StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>());
    let begin = Instant::now();
    let answer = connection.call(request.body(Body::new(never)).expect("a request")).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
    assert_eq!(begin.elapsed(), Limits::default().unary_time);
}
