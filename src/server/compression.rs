//! Compressed requests: what a caller has compressed with gzip reaches every service as if it had not been. A user's layers see it as it
//! came, as with tonic's own server.
//!
//! Each message is inflated once it is whole, so that a caller makes the server keep no more than it has sent; and no further than
//! the limit of a message. All calls of a server together hold a bounded number of inflated bytes until they are answered: a few KiB
//! may become a message of the largest size. Other encodings are passed on: a handler may know them, and tonic's refuse the others
//! with UNIMPLEMENTED. Answers are not compressed here.

use std::{
    convert::Infallible,
    future::Future,
    io::{self, Read as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_LENGTH};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service;

use super::fault::malformed_compression;
use crate::rpc::{PREFIX, SERVER};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,identity");

/// KiB of inflated messages that the calls of a server hold at a time, 256 MiB: 64 of the largest size. As many calls as a server takes
/// could hold 16 GiB.
const MAX_INFLATED_KIB: u32 = 256 << 10;

/// Room for the inflated messages of a server.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_INFLATED_KIB as usize))
}

/// The room that a call's last message takes.
type Held = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// Says in an answer which encodings of requests are accepted. What a handler says there may be what another server has said to it.
pub(super) fn announce(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, ACCEPTED);
}

/// Services that get their requests inflated.
#[derive(Clone)]
pub(super) struct Inflating {
    routes: Routes,
    /// Bytes of a message.
    limit: usize,
    room: Arc<Semaphore>,
}

impl Inflating {
    pub(super) fn new(routes: Routes, limit: usize, room: Arc<Semaphore>) -> Self {
        Self { routes: routes.prepare(), limit, room }
    }
}

impl Service<Request<Body>> for Inflating {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = InflatingFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let held = Held::default();
        let inner = self.routes.call(inflated(request, self.limit, &self.room, &held));
        InflatingFuture { inner, _held: held }
    }
}

/// The answer to a call. Until it is there, the handler may keep what was inflated for it.
pub(super) struct InflatingFuture {
    inner: <Routes as Service<Request<Body>>>::Future,
    _held: Held,
}

impl Future for InflatingFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(context)
    }
}

fn inflated(mut request: Request<Body>, limit: usize, room: &Arc<Semaphore>, held: &Held) -> Request<Body> {
    if request.headers().get(ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return request;
    }
    request.headers_mut().remove(ENCODING);
    request.headers_mut().remove(CONTENT_LENGTH);
    let (room, held) = (room.clone(), held.clone());
    request.map(|inner| Body::new(InflatedBody { inner, limit, room, held, received: BytesMut::new(), ended: false }))
}

/// The body of a request that names gzip. Its frames were checked.
struct InflatedBody {
    inner: Body,
    limit: usize,
    room: Arc<Semaphore>,
    held: Held,
    /// From the beginning of a message. At most one message and one frame of HTTP/2.
    received: BytesMut,
    ended: bool,
}

impl InflatedBody {
    /// A message as it is when it is not compressed. It takes the place of the one before, which was the handler's to keep or not.
    fn plain(&self, message: Bytes) -> Result<Bytes, Status> {
        *self.held.lock() = None;
        if message[0] == 0 {
            return Ok(message);
        }
        let message = plain(message, self.limit)?;
        let kib = u32::try_from(message.len().div_ceil(1024)).unwrap_or(u32::MAX).min(MAX_INFLATED_KIB);
        let permit = self.room.clone().try_acquire_many_owned(kib).map_err(|_| {
            let message = "the calls of this server hold as many inflated messages as it takes";
            SERVER.error(Code::ResourceExhausted, "TOO_MUCH_INFLATED", message)
        })?;
        *self.held.lock() = Some(permit);
        Ok(message)
    }
}

impl HttpBody for InflatedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = loop {
            // What has come first: another frame would only wait.
            if let Some(message) = whole_message(&mut self.received) {
                break Some(self.plain(message).map(Frame::data));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.received.extend_from_slice(&data),
                Some(Ok(Err(trailers))) => break Some(Ok(trailers)),
                Some(Err(status)) => break Some(Err(status)),
                None => break None,
            }
        };
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Takes the first message, with its prefix, if it is there.
fn whole_message(received: &mut BytesMut) -> Option<Bytes> {
    let (prefix, rest) = received.split_at_checked(PREFIX)?;
    let [_, length @ ..] = <[u8; PREFIX]>::try_from(prefix).ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (rest.len() >= length).then(|| received.split_to(PREFIX + length).freeze())
}

/// Inflates a message, with its prefix.
fn plain(mut message: Bytes, limit: usize) -> Result<Bytes, Status> {
    message.advance(PREFIX);
    let mut plain = vec![0; PREFIX];
    inflate(&message, limit, &mut plain)
        .map_err(|error| malformed_compression(format!("a message is not valid gzip: {error}")))?;
    let length = plain.len() - PREFIX;
    let prefix = u32::try_from(length).ok().filter(|_| length <= limit).ok_or_else(|| {
        let message = format!("a message is larger than the limit of {limit} bytes once it is inflated");
        SERVER.error(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message)
    })?;
    plain[1..PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Ok(plain.into())
}

/// Inflates up to one byte more than `limit`, behind what `into` has.
fn inflate(compressed: &[u8], limit: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let mut decoder = GzDecoder::new(compressed);
    let read = decoder.by_ref().take((limit as u64).saturating_add(1)).read_to_end(into)?;
    // Of one member: thousands of empty ones in one message would cost much more time than bytes.
    if read <= limit && !decoder.get_ref().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow its end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use futures_util::{FutureExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("a Vec has room");
        encoder.finish().expect("a Vec has room")
    }

    fn message(flag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("small");
        [&[flag], &length.to_be_bytes()[..], content].concat()
    }

    fn request(pieces: Vec<Vec<u8>>) -> Request<Body> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        let request = Request::builder().header(ENCODING, "gzip").header(CONTENT_LENGTH, 7);
        request.body(Body::new(StreamBody::new(stream::iter(frames)))).expect("a request")
    }

    /// What a handler gets of a body that comes in these pieces.
    fn read(pieces: Vec<Vec<u8>>) -> Result<Bytes, Code> {
        read_within(&room(), &Held::default(), pieces)
    }

    fn read_within(room: &Arc<Semaphore>, held: &Held, pieces: Vec<Vec<u8>>) -> Result<Bytes, Code> {
        let request = inflated(request(pieces), LIMIT, room, held);
        assert!(request.headers().is_empty(), "it is not compressed any more, and longer");
        let whole = request.into_body().collect().now_or_never().expect("nothing to wait for");
        whole.map(http_body_util::Collected::to_bytes).map_err(|status| status.code())
    }

    #[test]
    fn what_is_not_gzip_is_internal_and_a_bomb_is_resource_exhausted() {
        let good = gzip(b"hello");
        let mut wrong_sum = good.clone();
        wrong_sum[good.len() - 8] ^= 1;
        let mut wrong_size = good.clone();
        wrong_size[good.len() - 1] ^= 1;
        for (what, content, expected) in [
            ("whole", good.clone(), Ok(message(0, b"hello"))),
            ("nothing in it", gzip(b""), Ok(message(0, b""))),
            ("the largest", gzip(&[0; LIMIT]), Ok(message(0, &[0; LIMIT]))),
            ("a byte too large", gzip(&[0; LIMIT + 1]), Err(Code::ResourceExhausted)),
            ("a bomb", gzip(&vec![0; 1 << 24]), Err(Code::ResourceExhausted)),
            ("no bytes", vec![], Err(Code::Internal)),
            ("not gzip", b"hello".to_vec(), Err(Code::Internal)),
            ("a broken block", [&good[..10], &[7; 20]].concat(), Err(Code::Internal)),
            ("cut", good[..good.len() - 1].to_vec(), Err(Code::Internal)),
            ("a wrong checksum", wrong_sum, Err(Code::Internal)),
            ("a wrong size", wrong_size, Err(Code::Internal)),
            ("something behind it", [&good[..], b"x"].concat(), Err(Code::Internal)),
            ("two in one", [&good[..], &good].concat(), Err(Code::Internal)),
        ] {
            assert_eq!(read(vec![message(1, &content)]), expected.map(Bytes::from), "{what}");
        }
    }

    #[test]
    fn a_bomb_is_inflated_no_further_than_its_limit() {
        let mut plain = Vec::new();
        inflate(&gzip(&vec![0; 1 << 24]), LIMIT, &mut plain).expect("that far it is good");
        assert_eq!(plain.len(), LIMIT + 1);
        assert!(plain.capacity() < 4 * LIMIT, "{}", plain.capacity());
    }

    #[test]
    fn what_the_calls_of_a_server_hold_of_inflated_messages_is_bounded() {
        let room = Arc::new(Semaphore::new(2));
        let one = || vec![message(1, &gzip(&[0; LIMIT])), message(1, &gzip(&[0; LIMIT]))];
        let held = [(); 3].map(|()| Held::default());
        let expected = [message(0, &[0; LIMIT]), message(0, &[0; LIMIT])].concat();
        assert_eq!(read_within(&room, &held[0], one()), Ok(expected.clone().into()), "only the last message counts");
        assert_eq!(read_within(&room, &held[1], one()), Ok(expected.clone().into()));
        assert_eq!(read_within(&room, &held[2], one()), Err(Code::ResourceExhausted));
        let plain = message(0, &[0; LIMIT]);
        assert_eq!(read_within(&room, &held[2], vec![plain.clone()]), Ok(plain.into()), "the caller has sent it all");
        *held[0].lock() = None;
        assert_eq!(read_within(&room, &held[2], one()), Ok(expected.into()));
    }

    /// Reads its request, and never answers.
    #[derive(Clone)]
    struct Reads;

    impl tonic::server::NamedService for Reads {
        const NAME: &'static str = "test.Reads";
    }

    impl Service<Request<Body>> for Reads {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = futures_util::future::BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            Box::pin(async move {
                drop(request.into_body().collect().await.expect("whole"));
                std::future::pending().await
            })
        }
    }

    #[test]
    fn a_call_holds_the_room_of_its_message_until_it_is_answered() {
        let room = room();
        let mut inflating = Inflating::new(Routes::new(Reads), LIMIT, room.clone());
        let mut request = request(vec![message(1, &gzip(&[0; LIMIT]))]);
        *request.uri_mut() = http::Uri::from_static("http://test/test.Reads/Read");
        let mut call = inflating.call(request);
        assert!((&mut call).now_or_never().is_none(), "no answer");
        assert_eq!(room.available_permits(), MAX_INFLATED_KIB as usize - 1);
        drop(call);
        assert_eq!(room.available_permits(), MAX_INFLATED_KIB as usize);
    }

    proptest! {
        #[test]
        fn messages_arrive_as_they_were_whether_compressed_or_not_and_however_they_are_cut(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..5),
            cut in 1_usize..40,
        ) {
            let sent: Vec<u8> = messages
                .iter()
                .flat_map(|(compress, content)| if *compress { message(1, &gzip(content)) } else { message(0, content) })
                .collect();
            let plain: Vec<u8> = messages.iter().flat_map(|(_, content)| message(0, content)).collect();
            prop_assert_eq!(read(sent.chunks(cut).map(<[u8]>::to_vec).collect()), Ok(Bytes::from(plain)));
        }
    }
}
