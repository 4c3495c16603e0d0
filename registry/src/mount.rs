//! The registry as a tower service: the generated server, but for Watch, whose responses are encoded already.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use meshwork::contract::meshwork::registry::v1::{
    WatchRequest,
    registry_service_server::{RegistryServiceServer, SERVICE_NAME},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;

use crate::{
    service::{Registry, WireUpdates},
    wire::WatchResponse,
};

const WATCH: &str = "/meshwork.registry.v1.RegistryService/Watch";

/// What a server mounts.
#[derive(Clone, Debug)]
pub struct RegistryServer {
    registry: Registry,
    generated: RegistryServiceServer<Registry>,
}

impl RegistryServer {
    /// Serves `registry`.
    pub fn new(registry: Registry) -> Self {
        Self { generated: RegistryServiceServer::new(registry.clone()), registry }
    }
}

impl NamedService for RegistryServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for RegistryServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.generated, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != WATCH {
            return self.generated.call(request);
        }
        let method = Watch(self.registry.clone());
        Box::pin(async move {
            let codec = ProstCodec::<WatchResponse, WatchRequest>::default();
            Ok(Grpc::new(codec).server_streaming(method, request).await)
        })
    }
}

struct Watch(Registry);

impl ServerStreamingService<WatchRequest> for Watch {
    type Response = WatchResponse;
    type ResponseStream = WireUpdates;
    type Future = std::future::Ready<Result<Response<WireUpdates>, Status>>;

    fn call(&mut self, request: Request<WatchRequest>) -> Self::Future {
        std::future::ready(self.0.wire_updates(request.into_inner()).map(Response::new))
    }
}
