//! THE server: tonic services behind an accept loop that joins the mesh and leaves it without dropping a call.
//!
//! ```text
//!   accept (runtime) -> connection -> call: admit -> run -> your layers -> your service
//! ```
//!
//! The loop and every connection are owned here, because tonic's own server closes its listener at the first sign of a
//! shutdown and then waits without end. [`Server::serve`] says how it leaves. `incoming` is any stream
//! of connections; TLS is added here ([`Server::security`]).

mod authorization;
mod call;
mod compression;
mod config;
mod connection;
mod error;
mod fault;
mod handshakes;
mod health;
mod health_service;
mod infrastructure;
mod layers;
mod limits;
mod membership;
mod methods;
mod metrics;
mod peer;
mod request;
mod response;
mod runtime;
mod store;

use std::{convert::Infallible, future::Future, io};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, codegen::StdError, server::NamedService};
use tower::{Layer, Service};

pub use crate::discovery::announce::AnnounceError;
pub use config::{Config, Enforcement};
pub use error::{Error, is_fenced};
pub use layers::Routed;
pub use limits::Limits;
pub use store::{ServedStore, StoreScope};

use crate::{
    Mesh,
    authorization::{Callers, Knowledge},
    contract::meshwork::registry::v1::registry_service_client::RegistryServiceClient,
    discovery::announce::Gate,
    health::Condition,
    identity::Security,
};

use authorization::Source;
use health::Conditions;
use infrastructure::{Served, Services};
use layers::Layers;
use membership::Announce;
use runtime::Parts;

/// A server of one or more tonic services, as one instance of a mesh service.
pub struct Server(Parts);

impl Server {
    /// A server without services yet.
    pub fn new(config: Config) -> Self {
        Self(Parts {
            config,
            services: Services::default(),
            layers: Layers::default(),
            descriptors: vec![crate::contract::DESCRIPTORS, tonic_types::pb::FILE_DESCRIPTOR_SET],
            draining: CancellationToken::new(),
            announce: None,
            conditions: Conditions::default(),
            store: None,
            security: None,
            mesh_security: None,
            rules: None,
            mesh_rules: None,
        })
    }

    /// Adds a tonic service.
    ///
    /// # Panics
    /// If a service of that name was added before.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.0.services.add(service, Served::OWN);
        self
    }

    /// Adds a service by which the mesh itself works, such as a feed of events: as [`add_service`](Self::add_service), but no
    /// [`layer`](Self::layer) is around it, since its callers are other services and operators, and not yours. In strict mode it is
    /// for operators, and for callers that an authorization rule allows.
    ///
    /// # Panics
    /// If a service of that name was added before.
    #[must_use]
    pub fn add_mesh_service<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.add_mesh_service_for(&[], service)
    }

    /// As [`add_mesh_service`](Self::add_mesh_service), also for these callers, as authorization rules name them:
    /// `["service/customer"]` for the consumers of a feed of events.
    ///
    /// # Panics
    /// If one is not a caller, or a service of that name was added before.
    #[must_use]
    pub fn add_mesh_service_for<S>(mut self, callers: &[&str], service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let callers = Callers::parse(callers).unwrap_or_else(|(_, problem)| panic!("{problem}"));
        self.0.services.add(service, Served::mesh(callers));
        self
    }

    /// Wraps your services in a tower layer: the place for authentication, and for what else concerns all of your calls. It is
    /// tonic's `Server::builder().layer(..)`: any layer that works there works here, tonic's interceptors among them.
    ///
    /// ```
    /// use meshwork::server::{Config, Server};
    /// use tonic::{Request, Status, service::InterceptorLayer};
    ///
    /// fn authenticate(request: Request<()>) -> Result<Request<()>, Status> {
    ///     match request.metadata().get("authorization") {
    ///         Some(token) if token == "Bearer sesame" => Ok(request),
    ///         Some(_) | None => Err(Status::unauthenticated("a valid token is needed")),
    ///     }
    /// }
    ///
    /// # use std::{convert::Infallible, future::{Ready, ready}, io, task::{Context, Poll}};
    /// # use hyper_util::rt::{TokioExecutor, TokioIo};
    /// # use tonic::body::Body;
    /// # #[derive(Clone)]
    /// # struct Greeter;
    /// # impl tonic::server::NamedService for Greeter { const NAME: &'static str = "greeter.v1.GreeterService"; }
    /// # impl tower::Service<http::Request<Body>> for Greeter {
    /// #     type Response = http::Response<Body>;
    /// #     type Error = Infallible;
    /// #     type Future = Ready<Result<Self::Response, Infallible>>;
    /// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
    /// #     fn call(&mut self, _: http::Request<Body>) -> Self::Future { ready(Ok(Status::ok("").into_http())) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::new(Config::new("greeter", "127.0.0.1:7700"))
    ///     .layer(InterceptorLayer::new(authenticate))
    ///     .add_service(Greeter);
    /// # let (near, far) = tokio::io::duplex(4096);
    /// # let incoming = futures_util::stream::iter([io::Result::Ok(far)]);
    /// # tokio::spawn(server.serve(incoming, std::future::pending()));
    /// # let (mut client, connection) =
    /// #     hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await?;
    /// # tokio::spawn(connection);
    /// # let mut code = async |token: &str| -> Result<String, Box<dyn std::error::Error>> {
    /// #     let call = http::Request::post("http://greeter/greeter.v1.GreeterService/Greet");
    /// #     let call = call.header("content-type", "application/grpc").header("authorization", token);
    /// #     let answer = client.send_request(call.body(Body::empty())?).await?;
    /// #     Ok(answer.headers()["grpc-status"].to_str()?.to_owned())
    /// # };
    /// # assert_eq!(code("none").await?, "16", "UNAUTHENTICATED");
    /// # assert_eq!(code("Bearer sesame").await?, "0", "OK");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Called several times, the first layer is the outermost. All of them are around all services of
    /// [`add_service`](Self::add_service), in whatever order these methods are called. A call reaches them when it has passed the
    /// instance check and the limits, and what they take is part of its deadline. They never see health, reflection and the
    /// services of [`add_mesh_service`](Self::add_mesh_service), so that probes, subscriptions and operators' tools need no token.
    ///
    /// A layer's error that is or holds a [`tonic::Status`] ends the call with it. Any other is logged and ends the call as
    /// INTERNAL, as a panic does.
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Routed> + Send + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<StdError>,
        <L::Service as Service<Request<Body>>>::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        self.0.layers.add(layer);
        self
    }

    /// Adds an encoded `FileDescriptorSet` to those of Meshwork's contracts and google.rpc's details. From the descriptors
    /// come reflection, which methods rules may name, which stream, and which may be sent again.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.0.descriptors.push(encoded);
        self
    }

    /// Calls cannot be answered truthfully unless this is healthy: otherwise the health of the server and of its
    /// services is NOT_SERVING, and so is its status in the registry, so that clients go elsewhere.
    #[must_use]
    pub fn depends_on(mut self, condition: Condition) -> Self {
        self.0.conditions.essential.push(condition);
        self
    }

    /// Reports a condition under its own health name, such as `events/order`. It does not affect calls.
    #[must_use]
    pub fn reports(mut self, name: impl Into<String>, condition: Condition) -> Self {
        self.0.conditions.reported.push((name.into(), condition));
        self
    }

    /// Says in the registry which store the server serves: a second store for the service is refused there while this one is
    /// served, unless every instance has its own.
    #[must_use]
    pub fn serves_store(mut self, store: ServedStore) -> Self {
        self.0.store = Some(store);
        self
    }

    /// Fires once the server is leaving and the mesh knows: every long stream must end now with
    /// [`draining_status`](crate::rpc::draining_status), so
    /// that its client moves to another instance. Streams that go on are aborted at the drain limit.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// What all calls depend on, as one condition: well while the server is SERVING, or leaves. Every long stream shall end with
    /// [`not_serving_status`](crate::rpc::not_serving_status) while it is not, because a client does not look again where a stream comes from.
    pub fn serving(&self) -> Condition {
        self.0.conditions.together.condition()
    }

    /// How connections are protected. A server that is announced in a mesh takes it from there, and does not serve if this says another
    /// mode; this is for one that is not announced. Its certificate is kept up to date while it serves. Default: plain.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.0.security = Some(security);
        self
    }

    /// Where the server's authorization rules come from. A server that is announced in a mesh gets them there; this is for one that
    /// is not, as the registry itself: with both it does not serve. Without either there are none.
    #[must_use]
    pub fn authorization_rules(mut self, rules: watch::Receiver<Knowledge>) -> Self {
        self.0.rules = Some(Source::Own(rules));
        self
    }

    /// Announces the server in a mesh, at each of its registries: others find it for as long as it serves. A registry that is
    /// away is waited for while the server serves. Without this the server is in no mesh, as the registry itself.
    #[must_use]
    pub fn announce(mut self, mesh: Mesh) -> Self {
        self.0.mesh_security = Some(mesh.security().clone());
        let service = self.0.config.service.clone();
        let registries: Vec<_> = mesh.registries().into_iter().map(RegistryServiceClient::new).collect();
        let gates = Gate::to_all(registries.len(), &mesh.registry_states());
        // Watched from now on: for the authorization rules, and so that the drain does not begin with a new watch.
        let watched = mesh.endpoints(&service);
        self.0.mesh_rules = Some(Source::Mesh(watched.clone()));
        self.announce_through(Announce::new(registries.into_iter().zip(gates).collect(), move |announced| {
            let (mesh, service, watched) = (mesh.clone(), service.clone(), watched.clone());
            async move {
                mesh.saw(&service, &announced.epoch, announced.revision).await;
                drop(watched);
            }
        }))
    }

    #[must_use]
    fn announce_through(mut self, announce: Announce) -> Self {
        self.0.announce = Some(announce);
        self
    }

    /// Serves the connections of `incoming` until `shutdown` ends, then leaves:
    ///
    /// 1. health becomes NOT_SERVING, the registry's status DRAINING, and calls are served as before until the mesh has seen it;
    /// 2. [`Server::draining`] fires, every connection is sent GOAWAY, no more are accepted;
    /// 3. what is under way may finish within `drain_limit`;
    /// 4. the instance leaves the registry, and what is left is aborted.
    ///
    /// An error of `incoming` is logged and does not end the server; its end only means that no more connections come.
    ///
    /// # Errors
    /// A config or descriptors that cannot be served; or the instance was fenced, or refused by the registry: the server
    /// stops then, as if shut down.
    pub async fn serve<IO, I, F>(self, incoming: I, shutdown: F) -> Result<(), Error>
    where
        I: Stream<Item = io::Result<IO>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()>,
    {
        runtime::serve(self.0, incoming, shutdown).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
