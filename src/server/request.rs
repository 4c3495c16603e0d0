//! A request's body, checked for gRPC's framing while it flows.
//!
//! A caller's mistakes get errors that blame the caller: too large is RESOURCE_EXHAUSTED, no message or several where the method
//! takes one is UNIMPLEMENTED (gRPC's own table), broken framing is INVALID_ARGUMENT. tonic would answer the same bytes with
//! OUT_OF_RANGE and INTERNAL, and take the first of several messages.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::{
    fault::{malformed, malformed_compression},
    methods::Flow,
    response::StreamEnd,
};
use crate::rpc::{Framing, Prefix, SERVER};

/// Whether a request may carry messages that are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No.
    Identity,
    /// In the encoding that the request names. tonic decides whether the service supports it.
    Named,
}

impl Encoding {
    /// The `grpc-encoding`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get("grpc-encoding") {
            None => Self::Identity,
            Some(name) if name == "identity" => Self::Identity,
            Some(_) => Self::Named,
        }
    }
}

/// A request's body whose messages are within the limit and whole. It fails when its stream must end.
pub(super) struct CheckedBody<B> {
    inner: B,
    frames: Frames,
    /// Of a stream.
    end: Option<StreamEnd>,
    ended: bool,
}

impl<B> CheckedBody<B> {
    pub(super) fn new(inner: B, message_size: usize, flow: Flow, encoding: Encoding, end: Option<StreamEnd>) -> Self {
        let rules = Rules { limit: message_size, messages: 0, flow, encoding };
        let frames = Frames { framing: Framing::default(), rules };
        Self { inner, frames, end, ended: false }
    }
}

impl<B> Body for CheckedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(status)) = self.end.as_mut().map(|end| end.poll_unpin(context)) {
            self.ended = true;
            return Poll::Ready(Some(Err(status)));
        }
        let next = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let checked = match next {
            Some(Ok(frame)) => match frame.data_ref().map_or(Ok(()), |data| self.frames.check(data)) {
                Ok(()) => return Poll::Ready(Some(Ok(frame))),
                Err(status) => Err(status),
            },
            // Not CANCELLED: tonic takes that for the end of the request, and the handler would act on half of it.
            Some(Err(error)) => Err(Status::unavailable(format!("the request broke off: {}", error.into()))),
            None => self.frames.end(),
        };
        self.ended = true;
        Poll::Ready(checked.err().map(Err))
    }

    /// Not before the end was checked.
    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A request's messages as they begin.
struct Frames {
    framing: Framing,
    rules: Rules,
}

impl Frames {
    fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let Self { framing, rules } = self;
        framing.read(data, |prefix| rules.begin(prefix))
    }

    fn end(&self) -> Result<(), Status> {
        if self.framing.is_whole() { self.rules.end() } else { Err(malformed("the request ends within a message")) }
    }
}

/// What a request's messages must keep to.
struct Rules {
    limit: usize,
    messages: usize,
    flow: Flow,
    encoding: Encoding,
}

impl Rules {
    /// A message begins.
    fn begin(&mut self, Prefix { flag, length }: Prefix) -> Result<(), Status> {
        if flag > 1 {
            return Err(malformed(format!("a message begins with flag {flag}, which is neither 0 nor 1")));
        }
        if flag == 1 && self.encoding == Encoding::Identity {
            return Err(malformed_compression("a message is compressed, but the request names no grpc-encoding"));
        }
        if length > self.limit {
            let message = format!("a message of {length} bytes is larger than the limit of {} bytes", self.limit);
            return Err(SERVER.error(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message));
        }
        self.messages += 1;
        match self.flow {
            Flow::Unary | Flow::ServerStreaming if self.messages > 1 => Err(not_one_message("several messages")),
            Flow::Unary | Flow::ServerStreaming | Flow::ClientStreaming => Ok(()),
        }
    }

    fn end(&self) -> Result<(), Status> {
        match self.flow {
            Flow::Unary | Flow::ServerStreaming if self.messages == 0 => Err(not_one_message("no message")),
            Flow::Unary | Flow::ServerStreaming | Flow::ClientStreaming => Ok(()),
        }
    }
}

/// A cardinality violation, as gRPC's statuscodes.md calls it.
fn not_one_message(what: &str) -> Status {
    let message = format!("the request has {what}, and the method takes exactly one");
    SERVER.error(Code::Unimplemented, "NOT_ONE_MESSAGE", message)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;

    use super::*;

    /// The code with which a body of these chunks ends.
    fn code(chunks: Vec<Vec<u8>>, flow: Flow) -> Code {
        let chunks = chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Frame::data(Bytes::from(chunk))));
        let body = StreamBody::new(futures_util::stream::iter(chunks));
        let read = CheckedBody::new(body, 10, flow, Encoding::Identity, None).collect();
        let read = futures_util::FutureExt::now_or_never(read).expect("nothing to wait for");
        read.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    fn message(length: u32, content: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; content]);
        bytes
    }

    #[test]
    fn what_is_wrong_with_the_framing_is_the_callers_error() {
        for (what, bytes, expected) in [
            ("whole", message(10, 10), Code::Ok),
            ("too large", message(11, 11), Code::ResourceExhausted),
            ("too large, and not even sent", message(u32::MAX, 0), Code::ResourceExhausted),
            ("cut in the message", message(10, 9), Code::InvalidArgument),
            ("cut in the prefix", vec![0, 0], Code::InvalidArgument),
            ("an unknown flag", vec![2, 0, 0, 0, 0], Code::InvalidArgument),
            ("compressed, without an encoding", vec![1, 0, 0, 0, 0], Code::Internal),
            ("nothing", vec![], Code::Unimplemented),
            ("two", [message(1, 1), message(1, 1)].concat(), Code::Unimplemented),
        ] {
            assert_eq!(code(vec![bytes], Flow::Unary), expected, "{what}");
        }
        assert_eq!(code(vec![], Flow::ClientStreaming), Code::Ok, "a stream may have no message");
        let two = || vec![message(1, 1), message(1, 1)];
        assert_eq!(code(two(), Flow::ServerStreaming), Code::Unimplemented);
        assert_eq!(code(two(), Flow::ClientStreaming), Code::Ok);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            lengths in prop::collection::vec(0_u32..14, 0..5),
            missing in 0_usize..3,
            cut in 1_usize..9,
        ) {
            let mut bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length, *length as usize)).collect();
            bytes.truncate(bytes.len().saturating_sub(missing));
            let whole = code(vec![bytes.clone()], Flow::ClientStreaming);
            let pieces = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(code(pieces, Flow::ClientStreaming), whole);
        }
    }
}
