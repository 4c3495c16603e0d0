//! A request's body that can be sent more than once, while no server has answered and it is not too long.
//!
//! A unary request is one message that is ready at once: it is read ahead and shared, so that repeating it costs nothing
//! (and its END_STREAM travels with the message, not in a separate frame). A stream is recorded as it is sent, up to a
//! bound; beyond that, or once a server has answered, it is no longer recorded and can no longer be repeated.

mod recording;

pub(crate) mod upload;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use self::{
    recording::{Recording, poll_caller},
    upload::{AttemptStream, JustBegun, RequestStream, Upload},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a call.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// Some of it is still to come.
    Stream(RequestStream),
}

impl RequestBody {
    /// Takes what is ready, without waiting. Fails if the caller's first message cannot be encoded.
    pub(crate) fn read_ahead(mut body: Body, context: &mut Context<'_>) -> Result<Self, Status> {
        let mut sent = Vec::new();
        // One message, and the end behind it.
        for _ in 0..2 {
            match poll_caller(&mut body, context) {
                Poll::Ready(None) => return Ok(Self::Whole(sent.pop())),
                Poll::Ready(Some(frame)) => sent.extend(frame?.into_data()),
                Poll::Pending => break,
            }
            if body.is_end_stream() && sent.len() <= 1 {
                return Ok(Self::Whole(sent.pop()));
            }
        }
        Ok(Self::Stream(RequestStream::new(Recording::new(body, sent))))
    }

    /// The body for one attempt; attempts before it can read no more.
    pub(crate) fn attempt(&self) -> AttemptBody {
        match self {
            Self::Whole(message) => AttemptBody::Whole(message.clone()),
            Self::Stream(stream) => {
                AttemptBody::Stream { sent: Arc::new(stream.next_attempt()), next: 0, just_begun: None }
            }
        }
    }

    /// What the answer to the latest attempt holds of its request.
    pub(crate) fn upload(&self) -> Upload {
        match self {
            Self::Whole(_) => Upload::whole(),
            Self::Stream(stream) => stream.upload(),
        }
    }

    /// Whether it is all there, so that two attempts can send it at once.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Whether another attempt would send the same from the start.
    pub(crate) fn may_repeat(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(stream) => stream.is_open(),
        }
    }

    /// A server has accepted the call: nothing is recorded from here on.
    pub(crate) fn settle(&self) {
        match self {
            Self::Whole(_) => {}
            Self::Stream(stream) => stream.close(),
        }
    }

    /// Why the caller's own stream broke off, if it did.
    pub(crate) fn broken(&self) -> Option<Status> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(stream) => stream.broken(),
        }
    }
}

/// The body of one attempt, as hyper sends it.
#[derive(Debug)]
pub(crate) enum AttemptBody {
    Whole(Option<Bytes>),
    Stream { sent: Arc<AttemptStream>, next: usize, just_begun: Option<JustBegun> },
}

impl AttemptBody {
    /// Says where the connection that is to send it looks for its stream.
    pub(crate) fn sent_by(&mut self, connection: &JustBegun) {
        if let Self::Stream { just_begun, .. } = self {
            *just_begun = Some(connection.clone());
        }
    }
}

impl HttpBody for AttemptBody {
    type Data = Bytes;
    /// The caller's status, or an error of h2, whose reason becomes that of a RST_STREAM.
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(message) => Poll::Ready(message.take().map(|message| Ok(Frame::data(message)))),
            Self::Stream { sent, next, just_begun } => {
                just_begun.take().into_iter().for_each(|just_begun| just_begun.set(sent));
                sent.poll_next(next, context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(message) => message.is_none(),
            Self::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Not what we know: hyper would make a content-length of it, which gRPC does not use.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::{FutureExt as _, future::poll_fn, task::ArcWake};
    use h2::Reason;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::{recording::MAX_RECORDED, *};

    async fn read_ahead(body: Body) -> Result<RequestBody, Status> {
        let mut body = Some(body);
        poll_fn(|context| Poll::Ready(RequestBody::read_ahead(body.take().expect("polled once"), context))).await
    }

    type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

    fn stream() -> (Frames, Body) {
        let (frames, stream) = mpsc::unbounded_channel();
        (frames, Body::new(StreamBody::new(UnboundedReceiverStream::new(stream))))
    }

    fn send(frames: &Frames, text: &'static str) {
        frames.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).expect("the body is alive");
    }

    /// What is ready to be sent.
    fn sent(attempt: &mut AttemptBody) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(Some(frame)) = attempt.frame().now_or_never() {
            match frame {
                Ok(frame) => sent.push(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")),
                Err(error) => return vec![error.to_string()],
            }
        }
        sent
    }

    #[tokio::test]
    async fn a_unary_request_is_read_ahead_and_repeated_for_nothing() {
        let body = read_ahead(Body::new(Full::from("once"))).await.expect("encodes");
        assert!(matches!(&body, RequestBody::Whole(Some(_))));
        for _ in 0..3 {
            assert!(body.may_repeat());
            assert_eq!(sent(&mut body.attempt()), ["once"]);
        }
        assert!(matches!(read_ahead(Body::empty()).await, Ok(RequestBody::Whole(None))));
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_encoded_fails_with_its_own_status() {
        let (frames, body) = stream();
        frames.send(Err(Status::out_of_range("too large"))).expect("alive");
        assert_eq!(read_ahead(body).await.err().map(|status| status.code()), Some(tonic::Code::OutOfRange));
    }

    #[tokio::test]
    async fn a_stream_is_sent_again_from_its_start_and_goes_on() {
        let (frames, body) = stream();
        send(&frames, "a");
        let body = read_ahead(body).await.expect("encodes");
        let mut first = body.attempt();
        send(&frames, "b");
        assert_eq!(sent(&mut first), ["a", "b"]);
        assert!(body.may_repeat());

        let mut second = body.attempt();
        send(&frames, "c");
        assert_eq!(
            sent(&mut first),
            [h2::Error::from(Reason::CANCEL).to_string()],
            "it takes nothing from its successor"
        );
        assert_eq!(sent(&mut second), ["a", "b", "c"]);

        body.settle();
        assert!(!body.may_repeat());
        for text in ["d", "e"] {
            send(&frames, text);
            assert_eq!(sent(&mut second), [text]);
        }
        drop(frames);
        assert!(second.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_was_read_before_the_answer_is_still_sent_after_it() {
        let (frames, body) = stream();
        send(&frames, "a");
        send(&frames, "b");
        let body = read_ahead(body).await.expect("encodes");
        let mut attempt = body.attempt();
        body.settle();
        send(&frames, "c");
        assert_eq!(sent(&mut attempt), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_stream_beyond_the_bound_is_sent_but_not_kept() {
        let (frames, body) = stream();
        let body = read_ahead(body).await.expect("encodes");
        let mut attempt = body.attempt();
        let half = Bytes::from(vec![b'x'; MAX_RECORDED / 2 + 1]);
        for repeatable in [true, false] {
            frames.send(Ok(Frame::data(half.clone()))).expect("alive");
            assert_eq!(sent(&mut attempt)[0].len(), half.len());
            assert_eq!(body.may_repeat(), repeatable);
        }
    }

    #[tokio::test]
    async fn what_was_read_ahead_of_a_stream_and_is_beyond_the_bound_is_sent_once() {
        for messages in [1, 2] {
            let (frames, body) = stream();
            let message = Bytes::from(vec![b'x'; MAX_RECORDED / messages + 1]);
            (0..messages).for_each(|_| frames.send(Ok(Frame::data(message.clone()))).expect("alive"));
            let body = read_ahead(body).await.expect("encodes");
            let mut attempt = body.attempt();
            assert!(body.may_repeat(), "nothing of it was sent");
            assert_eq!(sent(&mut attempt).len(), messages);
            assert!(!body.may_repeat());
            assert!(message.is_unique(), "and not kept");
        }
    }

    #[tokio::test]
    async fn a_callers_broken_stream_is_reported_as_such() {
        let (frames, body) = stream();
        let body = read_ahead(body).await.expect("encodes");
        let mut attempt = body.attempt();
        frames.send(Err(Status::data_loss("mine"))).expect("alive");
        assert!(attempt.frame().await.expect("an error").is_err());
        assert_eq!(body.broken().map(|status| status.code()), Some(tonic::Code::DataLoss));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_stream_whose_answer_has_ended_sends_no_more_and_says_why() {
        for (end, reason) in [(Some(Reason::NO_ERROR), Reason::NO_ERROR), (None, Reason::CANCEL)] {
            let (frames, body) = stream();
            let body = read_ahead(body).await.expect("encodes");
            let mut attempt = body.attempt();
            let mut upload = body.upload();
            let woken = Arc::new(Woken::default());
            let waker = futures_util::task::waker(woken.clone());
            assert_eq!(sent(&mut attempt), [""; 0]);
            let AttemptBody::Stream { sent: stream, .. } = &attempt else { panic!("a stream") };
            assert!(stream.poll_end(&mut Context::from_waker(&waker)).is_pending());
            end.into_iter().for_each(|reason| upload.stop(reason));
            drop(upload);
            assert!(woken.0.load(Ordering::SeqCst), "the connection need not wait for another message");
            send(&frames, "late");
            assert_eq!(sent(&mut attempt), [h2::Error::from(reason).to_string()]);
        }
    }

    #[tokio::test]
    async fn a_callers_stream_may_drop_the_answer_of_its_own_call() {
        for breaks_off in [false, true] {
            let upload = Arc::new(parking_lot::Mutex::new(None::<Upload>));
            let held = upload.clone();
            let stream = futures_util::stream::poll_fn(move |_| match held.lock().take() {
                Some(upload) => {
                    assert!(upload.broken().is_none());
                    drop(upload);
                    Poll::Ready(breaks_off.then(|| Err(Status::data_loss("mine"))))
                }
                None => Poll::Pending,
            });
            let body = read_ahead(Body::new(StreamBody::new(stream))).await.expect("encodes");
            let mut attempt = body.attempt();
            *upload.lock() = Some(body.upload());
            assert_eq!(attempt.frame().await.transpose().is_err(), breaks_off);
        }
    }

    #[tokio::test]
    async fn the_end_of_an_earlier_attempts_answer_stops_no_later_attempt() {
        let (frames, body) = stream();
        let body = read_ahead(body).await.expect("encodes");
        let _first = body.attempt();
        let upload = body.upload();
        let mut second = body.attempt();
        drop(upload);
        send(&frames, "a");
        assert_eq!(sent(&mut second), ["a"]);
    }
}
