//! Sends a call as it is, with nothing between it and HTTP/2 that would correct it.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    sync::{Mutex, oneshot},
    task::AbortHandle,
    time::timeout,
};
use tonic::Status;

use super::call::{Call, Ending};

/// Frames of an answer that are read before its caller has seen enough.
const MAX_FRAMES: usize = 50;

type Body = UnsyncBoxBody<Bytes, Broken>;
type Sender = http2::SendRequest<Body>;

/// The request breaks off here.
#[derive(Debug, thiserror::Error)]
#[error("as told")]
struct Broken;

/// What became of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A whole answer.
    Answered(Answer),
    /// Its caller did not wait for the end.
    Left(Vec<u8>),
    /// The transport gave it up.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) http: u16,
    /// `None`: there was no `grpc-status`.
    pub(super) status: Option<Status>,
    /// The messages, with their frames.
    pub(super) body: Vec<u8>,
}

/// One instance, and a connection to it.
pub(super) struct Peer {
    address: SocketAddr,
    connection: Mutex<Option<Sender>>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, connection: Mutex::default() }
    }

    /// Makes a call and says what became of it.
    pub(super) async fn send(&self, call: &Call) -> Outcome {
        if let Ending::Vanish(after) = call.ending {
            let (sender, connection) = self.connect().await;
            drop(timeout(after, exchange(sender, call)).await);
            connection.abort();
            return Outcome::Left(Vec::new());
        }
        let sender = self.sender().await;
        let exchanged = exchange(sender, call);
        match call.ending {
            Ending::Leave(after) => timeout(after, exchanged).await.unwrap_or(Outcome::Left(Vec::new())),
            Ending::Whole | Ending::Reset | Ending::Silence | Ending::Vanish(_) => exchanged.await,
        }
    }

    /// A handle on the connection that all calls share, unless they break it.
    async fn sender(&self) -> Sender {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_none_or(Sender::is_closed) {
            *connection = Some(self.connect().await.0);
        }
        connection.clone().expect("just connected")
    }

    async fn connect(&self) -> (Sender, AbortHandle) {
        let stream = TcpStream::connect(self.address).await.expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the server answers");
        (sender, tokio::spawn(connection).abort_handle())
    }
}

async fn exchange(mut sender: Sender, call: &Call) -> Outcome {
    // A request that has not ended is reset when its caller leaves.
    let (_here, left) = oneshot::channel();
    match sender.send_request(request(call, left)).await {
        Ok(response) => read(response).await,
        Err(error) => Outcome::Failed(format!("{error:?}")),
    }
}

fn request(call: &Call, left: oneshot::Receiver<Infallible>) -> Request<Body> {
    let pieces = stream::iter(call.pieces.clone()).map(|piece| Ok(Frame::data(piece)));
    let body = match call.ending {
        Ending::Whole => StreamBody::new(pieces).boxed_unsync(),
        Ending::Reset => StreamBody::new(pieces.chain(stream::iter([Err(Broken)]))).boxed_unsync(),
        Ending::Silence | Ending::Leave(_) | Ending::Vanish(_) => {
            let end = stream::once(left).map(|_| Err(Broken));
            StreamBody::new(pieces.chain(end)).boxed_unsync()
        }
    };
    let uri = format!("http://mesh{}", call.path);
    let mut request = Request::builder().method(call.http_method.clone()).uri(uri).body(body).expect("a request");
    for (name, value) in &call.headers {
        request.headers_mut().append(name, value.clone());
    }
    request
}

async fn read(response: Response<Incoming>) -> Outcome {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    for _ in 0..MAX_FRAMES {
        match incoming.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => body.extend(data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
            Some(Err(error)) => return Outcome::Failed(format!("{error:?}")),
            None => {
                let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&head.headers));
                return Outcome::Answered(Answer { http: head.status.as_u16(), status, body });
            }
        }
    }
    Outcome::Left(body)
}
