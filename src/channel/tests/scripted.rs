//! Servers that do as a test tells them, and keep a list of what came.

use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::{
    future::{Either, poll_fn, select},
    stream::FuturesUnordered,
};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::HeaderMap;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;

use super::{net::RawPeer, *};
use crate::policy::RetryPolicy;

pub(super) type Respond = SendResponse<Bytes>;
/// What a server does with a call; whether its connection goes on.
pub(super) type Deal = fn(&mut Respond) -> ControlFlow<()>;

/// What a server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) at: Instant,
    pub(super) previous_attempts: Option<String>,
}

/// Servers that deal with each call as told. They keep a list of what came.
#[derive(Default)]
pub(super) struct Scripted {
    arrived: Arc<parking_lot::Mutex<Vec<Arrived>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scripted {
    pub(super) fn serve(
        &mut self,
        bench: &Bench,
        server: &str,
        deal: impl Fn(&mut Respond) -> ControlFlow<()> + Send + 'static,
    ) {
        let mut peer = RawPeer::listen(&bench.net, &format!("{server}:1"));
        let arrived = self.arrived.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                let mut connection = peer.accept().await;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    arrived.lock().push(Arrived::new(&request));
                    if deal(&mut respond).is_break() {
                        // What it has said is sent first.
                        let _ = timeout(Duration::from_millis(1), connection.accept()).await;
                        break;
                    }
                }
            }
        }));
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().clone()
    }

    /// How often a server was asked.
    pub(super) fn calls(&self) -> usize {
        self.arrived().len()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Arrived {
    fn new(request: &http::Request<RecvStream>) -> Self {
        let previous = request.headers().get("grpc-previous-rpc-attempts");
        let previous_attempts = previous.map(|previous| previous.to_str().expect("text").to_owned());
        Self { at: Instant::now(), previous_attempts }
    }
}

pub(super) const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

fn headers() -> http::response::Builder {
    http::Response::builder().header("content-type", "application/grpc")
}

pub(super) fn begin(respond: &mut Respond) -> SendStream<Bytes> {
    respond.send_response(headers().body(()).expect("headers"), false).expect("the call is there")
}

/// A message of one byte.
pub(super) fn message(body: &mut SendStream<Bytes>) {
    body.send_data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x"), false).expect("the call is there");
}

pub(super) fn end(body: &mut SendStream<Bytes>, code: Code) {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, i32::from(code).into())]);
    body.send_trailers(trailers).expect("the call is there");
}

pub(super) fn fail(respond: &mut Respond, code: Code, pushback: Option<&str>) -> ControlFlow<()> {
    let mut response = headers().header("grpc-status", i32::from(code));
    if let Some(pushback) = pushback {
        response = response.header("grpc-retry-pushback-ms", pushback);
    }
    respond.send_response(response.body(()).expect("headers"), true).expect("the call is there");
    GO_ON
}

pub(super) fn unavailable(respond: &mut Respond) -> ControlFlow<()> {
    fail(respond, Code::Unavailable, None)
}

/// Waits until the channel makes its calls on certain terms.
pub(super) async fn until_config(bench: &Bench, hold: impl Fn(&service_config::CallConfig) -> bool) {
    let path = PathAndQuery::from_static(net::READ);
    soon(async {
        while !hold(&bench.channel.shared.config.of(&path)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the channel knows its endpoints.
pub(super) async fn until_known(bench: &Bench) {
    until_config(bench, |config| config.method.is_some()).await;
}

/// Changes the policy, and waits until calls are made by it.
pub(super) async fn set_policy(bench: &Bench, change: impl FnOnce(&mut RetryPolicy)) {
    let mut policy = bench.endpoints.borrow().policy.retry.clone();
    change(&mut policy);
    bench.endpoints.send_modify(|set| Arc::make_mut(&mut set.policy).retry = policy.clone());
    until_config(bench, |config| config.policy.retry == policy).await;
}

/// A server that holds every call for a time, and then answers UNAVAILABLE.
pub(super) struct Holding {
    state: watch::Receiver<Held>,
    task: JoinHandle<()>,
}

/// How many calls came, and how many of them were cancelled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) calls: usize,
    pub(super) cancelled: usize,
}

impl Holding {
    pub(super) fn serve(bench: &Bench, server: &str, time: Duration) -> Self {
        let mut peer = RawPeer::listen(&bench.net, &format!("{server}:1"));
        let (held, state) = watch::channel(Held::default());
        let task = tokio::spawn(async move {
            let mut connection = peer.accept().await;
            let mut calls = FuturesUnordered::new();
            loop {
                tokio::select! {
                    call = connection.accept() => {
                        let Some(Ok((request, respond))) = call else { return };
                        held.send_modify(|held| held.calls += 1);
                        calls.push(hold(request, respond, time));
                    }
                    Some(reset) = calls.next() => {
                        let cancelled = reset == Some(Reason::CANCEL);
                        held.send_modify(|held| held.cancelled += usize::from(cancelled));
                    }
                }
            }
        });
        Self { state, task }
    }

    pub(super) fn held(&self) -> Held {
        *self.state.borrow()
    }

    pub(super) async fn until(&mut self, condition: impl FnMut(&Held) -> bool) {
        soon(self.state.wait_for(condition)).await.expect("it serves");
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the caller reset the call, if it did.
async fn hold(_request: http::Request<RecvStream>, mut respond: Respond, time: Duration) -> Option<Reason> {
    let reset = std::pin::pin!(poll_fn(|context| respond.poll_reset(context)));
    let reset = match select(reset, std::pin::pin!(tokio::time::sleep(time))).await {
        Either::Left((reset, _)) => reset.ok(),
        Either::Right(_) => None,
    };
    if reset.is_none() {
        let _ = unavailable(&mut respond);
    }
    reset
}
