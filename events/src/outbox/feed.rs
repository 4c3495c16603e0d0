//! Serves an outbox to subscribers over gRPC.

use std::pin::Pin;

use futures_util::{Stream, stream};
use meshwork::{
    contract::meshwork::event::v1::{
        GetPositionRequest, LogPosition, SubscribeRequest, SubscribeResponse,
        event_service_server::{EventService, EventServiceServer},
    },
    health::Condition,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Outbox,
    session::{self, Session},
};

/// Serves the outbox of one service instance.
pub struct Feed {
    outbox: Outbox,
    draining: CancellationToken,
    serving: Condition,
}

impl Feed {
    /// The gRPC service. Streams end with UNAVAILABLE, so that subscribers move to another instance, when `draining` fires and
    /// while `serving` has a problem: see [`Server::draining`] and [`Server::serving`].
    ///
    /// [`Server::draining`]: meshwork::server::Server::draining
    /// [`Server::serving`]: meshwork::server::Server::serving
    pub fn service(outbox: Outbox, draining: CancellationToken, serving: Condition) -> EventServiceServer<Self> {
        EventServiceServer::new(Self { outbox, draining, serving })
    }
}

#[tonic::async_trait]
impl EventService for Feed {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (draining, serving) = (self.draining.clone(), self.serving.clone());
        let session = Session::new(self.outbox.clone(), request.into_inner(), draining, serving);
        // The session runs only while its stream is polled: no task, and the transport's flow control is its only queue.
        let responses = stream::try_unfold(session, |mut session| async move {
            Ok(session.next().await?.map(|response| (response, session)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn get_position(&self, request: Request<GetPositionRequest>) -> Result<Response<LogPosition>, Status> {
        session::position(&self.outbox, &request.into_inner()).await.map(Response::new)
    }
}
