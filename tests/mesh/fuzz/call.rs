//! One hostile call, made up before it is sent so that it can be shown if it does harm.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use prost_reflect::MethodDescriptor;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{lexicon::Lexicon, message::Author};

/// Values of `grpc-timeout` that are none.
const NO_TIMEOUTS: [&[u8]; 8] = [b"", b"S", b"1", b"-1S", b"1s", b"123456789m", b"1 S", b"\xef\xbc\x91S"];
/// Values that are one, and bound nothing here.
const LONG_TIMEOUTS: [&[u8]; 2] = [b"99999999H", b"86400S"];
/// What a stream may take without a deadline before its caller has seen enough.
const PATIENCE: Duration = Duration::from_millis(40);

/// gRPC's frame before each message: a flag and a length.
pub(super) const PREFIX: usize = 5;

/// How a caller ends what it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    Whole,
    /// Resets the stream behind the last byte.
    Reset,
    /// Never, and says nothing more: the call's deadline is what ends it.
    Silence,
    /// Loses interest after this long, wherever the answer is.
    Leave(Duration),
    /// Loses its connection after this long.
    Vanish(Duration),
}

/// A call.
pub(super) struct Call {
    pub(super) http_method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) pieces: Vec<Bytes>,
    pub(super) ending: Ending,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { http_method, path, headers, pieces, ending } = self;
        let mut bytes = format!("{:02x?}", pieces.concat());
        bytes.truncate(4000);
        write!(f, "{http_method} {path}\nheaders: {headers:?}\nending: {ending:?}\nbytes: {bytes}")
    }
}

impl Call {
    /// A call with nothing wrong.
    pub(super) fn honest(path: &str, message: &impl prost::Message) -> Self {
        let message = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).expect("a small message").to_be_bytes());
        bytes.extend(message);
        Self::new(path, vec![bytes.into()])
    }

    /// The call of this seed.
    pub(super) fn hostile(seed: u64, method: &MethodDescriptor, lexicon: &Lexicon) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let bytes = messages(&mut rng, method, lexicon);
        let mut call = Self::new(&path, pieces(&mut rng, &bytes));
        call.set("grpc-timeout", format!("{}m", rng.random_range(1..300)).as_bytes());
        if rng.random_bool(0.3) {
            call.end_badly(&mut rng);
        }
        if rng.random_bool(0.2) {
            call.lie(&mut rng, method.is_server_streaming());
        }
        call
    }

    fn new(path: &str, pieces: Vec<Bytes>) -> Self {
        let (http_method, path, ending) = (Method::POST, path.to_owned(), Ending::Whole);
        let mut call = Self { http_method, path, headers: Vec::new(), pieces, ending };
        call.set("content-type", b"application/grpc");
        call.set("te", b"trailers");
        call
    }

    fn set(&mut self, name: &'static str, value: &[u8]) {
        let name = HeaderName::from_static(name);
        self.headers.retain(|(known, _)| *known != name);
        // What no HTTP client can send is not sent.
        self.headers.extend(HeaderValue::from_bytes(value).ok().map(|value| (name, value)));
    }

    fn end_badly(&mut self, rng: &mut StdRng) {
        let wait = Duration::from_millis(rng.random_range(0..30));
        self.ending = match rng.random_range(0..8) {
            0..3 => Ending::Reset,
            3..5 => Ending::Silence,
            5..7 => Ending::Leave(wait),
            _ => Ending::Vanish(wait),
        };
        // Anywhere: before, within or after a message.
        let mut left = rng.random_range(0..=self.pieces.iter().map(Bytes::len).sum::<usize>());
        self.pieces.retain_mut(|piece| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
    }

    /// Says something untrue in the headers.
    fn lie(&mut self, rng: &mut StdRng, long: bool) {
        match rng.random_range(0..9) {
            0 => {
                let types: &[&[u8]] = &[b"text/html", b"application/grpc-web", b"application/grpc+json", b"\xff", b""];
                self.set("content-type", types.choose(rng).expect("there are some"));
            }
            1 => self.headers.retain(|(name, _)| name != "te"),
            2 => self.set("grpc-timeout", NO_TIMEOUTS.choose(rng).expect("there are some")),
            3 => {
                self.set("grpc-timeout", LONG_TIMEOUTS.choose(rng).expect("there are some"));
                if long || self.ending == Ending::Silence {
                    self.ending = Ending::Leave(PATIENCE);
                }
            }
            4 => self.set("grpc-encoding", [&b"gzip"[..], b"identity", b"x"].choose(rng).expect("there are some")),
            5 => self.set("meshwork-instance", b"nobody"),
            6 => {
                for n in 0..200 {
                    let name = HeaderName::try_from(format!("x-{n}-bin")).expect("a name");
                    self.headers.push((name, HeaderValue::from_static("!no base64!")));
                }
            }
            7 => {
                let paths =
                    ["/", "/a", "/shop.order.v1.OrderService", "/shop.order.v1.OrderService/Else", "//", "/%00/%ff"];
                self.path = (*paths.choose(rng).expect("there are some")).to_owned();
            }
            _ => self.http_method = [Method::GET, Method::OPTIONS].choose(rng).expect("there are some").clone(),
        }
    }
}

/// The messages of a request, each with its frame.
fn messages(rng: &mut StdRng, method: &MethodDescriptor, lexicon: &Lexicon) -> Vec<u8> {
    let count = match (method.is_client_streaming(), rng.random_range(0..20)) {
        (true, _) => rng.random_range(0..8),
        (false, 0) => 0,
        (false, 1) => 2,
        (false, _) => 1,
    };
    let hostility = *[0.0, 0.0, 0.1, 0.3, 1.0].choose(rng).expect("there are some");
    let mut bytes = Vec::new();
    for _ in 0..count {
        let message = Author::new(rng, lexicon, hostility).bytes(&method.input());
        frame(rng, &message, &mut bytes);
    }
    bytes
}

/// Puts a frame around a message, most times the right one.
fn frame(rng: &mut StdRng, message: &[u8], into: &mut Vec<u8>) {
    let true_length = u32::try_from(message.len()).expect("messages here are small");
    let (flag, length) = match rng.random_range(0..40) {
        0 => (1, true_length),
        1 => (rng.random_range(2..=255), true_length),
        2 => (0, true_length + 1),
        3 => (0, true_length.saturating_sub(1)),
        4 => (0, u32::MAX),
        5 => (0, 5 << 20),
        _ => (0, true_length),
    };
    into.push(flag);
    into.extend(length.to_be_bytes());
    into.extend(message);
}

/// Cuts bytes into the pieces in which they are sent.
fn pieces(rng: &mut StdRng, bytes: &[u8]) -> Vec<Bytes> {
    let size = *[1, 3, 5, 100, 1 << 20].choose(rng).expect("there are some");
    // Not a hundred thousand of them.
    let size = size.max(bytes.len() / 100);
    bytes.chunks(size).map(Bytes::copy_from_slice).collect()
}
