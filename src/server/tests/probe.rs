//! The service under test: it does what a request's text tells it to.

use std::{pin::Pin, sync::Arc, task::Poll};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    contract::meshwork::registry::v1::{
        registry_service_server::{RegistryService, RegistryServiceServer},
        *,
    },
    deadline,
    identity::PeerIdentity,
    rpc::draining_status,
};

type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What the probe has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) started: usize,
    /// Handlers and streams that are alive.
    pub(super) alive: usize,
    /// Of the messages that "endless" streams have made.
    pub(super) endless_bytes: usize,
}

/// Bytes of a message of an "endless" stream.
pub(super) const ENDLESS_MESSAGE: usize = 16 * 1024;

#[derive(Clone)]
pub(super) struct Probe {
    seen: Arc<watch::Sender<Seen>>,
    gate: Arc<Semaphore>,
    draining: CancellationToken,
}

impl Probe {
    pub(super) fn new(draining: CancellationToken) -> Self {
        Self { seen: Arc::default(), gate: Arc::new(Semaphore::new(0)), draining }
    }

    pub(super) fn service(&self) -> RegistryServiceServer<Self> {
        RegistryServiceServer::new(self.clone())
    }

    /// Lets one call that waits go on.
    pub(super) fn release(&self) {
        self.gate.add_permits(1);
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until the probe has seen that.
    pub(super) async fn until(&self, condition: impl FnMut(&Seen) -> bool) {
        super::soon(self.seen.subscribe().wait_for(condition)).await.expect("the sender is here");
    }

    fn enter(&self) -> Alive {
        self.seen.send_modify(|seen| {
            seen.started += 1;
            seen.alive += 1;
        });
        Alive(self.seen.clone())
    }
}

struct Alive(Arc<watch::Sender<Seen>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.alive -= 1);
    }
}

#[tonic::async_trait]
impl RegistryService for Probe {
    type KeepAliveStream = Messages<KeepAliveResponse>;
    type WatchStream = Messages<WatchResponse>;

    /// The unary rpc: does what `lease_id` says.
    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterResponse>, Status> {
        let _alive = self.enter();
        match request.get_ref().lease_id.as_str() {
            "wait" => self.gate.acquire().await.expect("never closed").forget(),
            "panic" => panic!("as told"),
            "identity" => {
                let peer = request.extensions().get::<PeerIdentity>().expect("every call has one");
                return Err(Status::failed_precondition(peer.name()));
            }
            "deadline" => {
                let extension = request.extensions().get::<deadline::Deadline>().copied();
                assert_eq!(extension, deadline::current());
                let left = deadline::current().map(deadline::Deadline::remaining);
                return Err(Status::failed_precondition(format!("{left:?}")));
            }
            _ => {}
        }
        Ok(Response::new(DeregisterResponse {}))
    }

    /// The server stream: endless, but for the drain if it is not "stubborn"; "panic" panics after a message, "claim" ends
    /// as if it had not begun, "deadline" says what is left, "endless" always has more to say.
    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let alive = self.enter();
        let how = request.into_inner().services.pop().unwrap_or_default();
        let rest: Messages<WatchResponse> = match how.as_str() {
            "panic" => Box::pin(stream::poll_fn(|_| panic!("as told"))),
            "deadline" => Box::pin(stream::poll_fn(|_| {
                let left = deadline::current().map(deadline::Deadline::remaining);
                Poll::Ready(Some(Err(Status::failed_precondition(format!("{left:?}")))))
            })),
            "claim" => {
                let mut status = Status::unavailable("not now");
                for (name, value) in [("meshwork-refused", "draining"), ("meshwork-instance", "downstream")] {
                    status.metadata_mut().insert(name, value.parse().expect("a header value"));
                }
                Box::pin(stream::once(async { Err(status) }))
            }
            "stubborn" => Box::pin(stream::pending()),
            "endless" => {
                let seen = self.seen.clone();
                Box::pin(stream::repeat_with(move || {
                    seen.send_modify(|seen| seen.endless_bytes += ENDLESS_MESSAGE);
                    Ok(WatchResponse { epoch: "x".repeat(ENDLESS_MESSAGE), ..WatchResponse::default() })
                }))
            }
            _ => {
                let draining = self.draining.clone().cancelled_owned();
                Box::pin(stream::once(draining).map(|()| Err(draining_status())))
            }
        };
        let first = stream::once(async { Ok(WatchResponse::default()) });
        let messages = first.chain(rest).map(move |message| {
            let _ = &alive;
            message
        });
        Ok(Response::new(Box::pin(messages)))
    }

    /// The stream both ways: echoes lease ids.
    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let alive = self.enter();
        let answers = request.into_inner().map(move |request| {
            let _ = &alive;
            request.map(|request| KeepAliveResponse { lease_id: request.lease_id, state: 0 })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<Lease>, Status> {
        Err(Status::internal("failed to store"))
    }

    async fn set_status(&self, _: Request<SetStatusRequest>) -> Result<Response<Lease>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_services(&self, _: Request<ListServicesRequest>) -> Result<Response<ListServicesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// A unary request that tells the probe what to do.
pub(super) fn unary(what: &str) -> DeregisterRequest {
    DeregisterRequest { lease_id: what.into() }
}

/// A request for a stream that tells the probe what to do.
pub(super) fn stream_of(what: &str) -> WatchRequest {
    WatchRequest { services: vec![what.into()], resume_from: None }
}
