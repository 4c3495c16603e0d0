//! An answer as its caller reads it: its messages keep to their rules, fields meant for the channel are removed, and its end is
//! counted.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::{Code, Status, body::Body};

use super::{message_rules::MessageRules, response::ResponseBody};
use crate::{
    channel::{
        call::{Answer, verdict},
        classify::Verdict,
        error::at_peer,
        metrics::Observed,
    },
    headers::{PUSHBACK, REFUSED},
};

/// Hands an answer to its caller. `keep` is dropped with it.
pub(crate) fn observe<K: Send + Unpin + 'static>(
    mut answer: Answer,
    rules: MessageRules,
    mut timed: Observed,
    keep: K,
) -> Response<Body> {
    timed.answered();
    let open = match verdict(&answer).code {
        Some(code) => {
            timed.end(code);
            None
        }
        None => Some(timed),
    };
    strip_reserved(answer.headers_mut());
    answer.map(|body| Body::new(ObservedBody { body, rules, open, _keep: keep }))
}

/// Removes what a server says to the channel: it has been acted on, and a handler that passes an error on must not send it to its
/// own caller the same.
fn strip_reserved(headers: &mut HeaderMap) {
    headers.remove(REFUSED);
    headers.remove(PUSHBACK);
}

/// The body of an answer at its caller.
struct ObservedBody<K> {
    body: ResponseBody,
    rules: MessageRules,
    /// `None`: it is known how the call ends.
    open: Option<Observed>,
    /// The channel: the answer may be read for longer than its caller keeps the client.
    _keep: K,
}

impl<K> ObservedBody<K> {
    fn ended(&mut self, code: Code) {
        if let Some(timed) = self.open.take() {
            timed.end(code);
        }
    }
}

impl<K: Unpin> ObservedBody<K> {
    /// Ends the call at the first message that breaks a rule.
    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        let checked = frame.data_ref().map_or(Ok(()), |data| self.rules.check(data));
        checked.map(|()| frame).map_err(|status| {
            self.body.end(Reason::CANCEL);
            at_peer(status, self.body.endpoint().peer())
        })
    }
}

impl<K: Unpin> HttpBody for ObservedBody<K> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let mut frame = frame.map(|frame| this.check(frame?));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.ended(Verdict::of_trailers(trailers).code.unwrap_or(Code::Unknown));
                    strip_reserved(trailers);
                }
            }
            Some(Err(status)) => this.ended(status.code()),
            None => this.ended(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
