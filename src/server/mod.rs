//! THE server: tonic services behind an accept loop that joins the mesh and leaves it without dropping a call.
//!
//! ```text
//!   accept (runtime) -> connection -> call: admit -> run -> your service
//! ```
//!
//! The loop and every connection are owned here, because tonic's own server closes its listener at the first sign of a
//! shutdown and then waits without end. How it leaves is told in [`Server::serve`]. TLS is not its matter: `incoming` is
//! any stream of connections.

mod call;
mod config;
mod connection;
mod fault;
mod health;
mod infrastructure;
mod limits;
mod membership;
mod methods;
mod metrics;
mod places;
mod request;
mod response;
mod runtime;

use std::{convert::Infallible, future::Future, io};

use futures_util::Stream;
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, server::NamedService};
use tower::Service;

pub use config::Config;
pub use limits::Limits;

pub use crate::discovery::announce::AnnounceError;
use crate::{
    Mesh, contract::meshwork::registry::v1::registry_service_client::RegistryServiceClient, discovery::announce::Gate,
    health::Condition,
};

use health::Conditions;
use infrastructure::Services;
use membership::Announce;

/// The store that a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedStore {
    /// Its id.
    pub store_id: String,
    /// Where it is, by which a copy of it is told apart: another text for each database. Empty: not said.
    pub place: String,
    /// Whose it is.
    pub scope: StoreScope,
}

/// Whose a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreScope {
    /// Of the whole service: all instances serve the same, and others read its log.
    Service,
    /// Of one instance, as a private view.
    Instance,
}

/// A server of one or more tonic services, as one instance of a mesh service.
pub struct Server {
    config: Config,
    services: Services,
    descriptors: Vec<&'static [u8]>,
    draining: CancellationToken,
    announce: Option<Announce>,
    conditions: Conditions,
    store: Option<ServedStore>,
}

impl Server {
    /// A server without services yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            services: Services::default(),
            descriptors: vec![crate::contract::DESCRIPTORS, tonic_types::pb::FILE_DESCRIPTOR_SET],
            draining: CancellationToken::new(),
            announce: None,
            conditions: Conditions::default(),
            store: None,
        }
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
        self.services = self.services.add(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` to those of Meshwork's contracts and google.rpc's details. From the descriptors
    /// come reflection, which methods stream, and which may be sent again.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// Calls cannot be answered truthfully unless this is well: then the health of the server and of its services is NOT_SERVING,
    /// and so is its status in the registry, so that clients go elsewhere.
    #[must_use]
    pub fn depends_on(mut self, condition: Condition) -> Self {
        self.conditions.essential.push(condition);
        self
    }

    /// Reports a condition under a health name of its own, such as `events/order`. It takes no calls away.
    #[must_use]
    pub fn reports(mut self, name: impl Into<String>, condition: Condition) -> Self {
        self.conditions.reported.push((name.into(), condition));
        self
    }

    /// Says in the registry which store the server serves: a second store for the service is refused there while this one is
    /// served, unless every instance has one of its own.
    #[must_use]
    pub fn serves_store(mut self, store: ServedStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Fires when the server leaves and has told everybody: every long stream shall end now with
    /// [`draining_status`](crate::rpc::draining_status), so
    /// that its client moves to another instance. Streams that go on are aborted at the drain limit.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// What all calls depend on, as one condition: well while the server is SERVING, or leaves. Every long stream shall end with
    /// [`not_serving_status`](crate::rpc::not_serving_status) while it is not, because a client does not look again where a stream comes from.
    pub fn serving(&self) -> Condition {
        self.conditions.together.condition()
    }

    /// Announces the server in a mesh, at each of its registries: others find it for as long as it serves. A registry that is
    /// away is waited for while the server serves. Without this the server is in no mesh, as the registry itself.
    #[must_use]
    pub fn announce(self, mesh: Mesh) -> Self {
        let service = self.config.service.clone();
        let registries: Vec<_> = mesh.registries().into_iter().map(RegistryServiceClient::new).collect();
        let gates = Gate::to_all(registries.len(), &mesh.registry_states());
        // Watched from now on, so that the drain does not begin with a new watch.
        let watched = mesh.endpoints(&service);
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
        self.announce = Some(announce);
        self
    }

    /// Serves the connections of `incoming` until `shutdown` ends, then leaves:
    ///
    /// 1. health says NOT_SERVING, the registry DRAINING, and calls are served as before until the mesh has seen it;
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
        runtime::serve(self, incoming, shutdown).await
    }
}

/// Why a server could not serve, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The instance id cannot be a header's value.
    #[error("instance id {0:?}: must be 1 to 128 visible ASCII characters")]
    InvalidInstanceId(String),
    /// The bytes given to [`Server::descriptors`] are not a `FileDescriptorSet`.
    #[error("the descriptors cannot be read")]
    Descriptors(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The instance cannot be in the registry, and therefore not in the mesh.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}

/// An instance id as a header's value.
fn instance_header(instance_id: &str) -> Result<HeaderValue, Error> {
    let invalid = || Error::InvalidInstanceId(instance_id.to_owned());
    if !(1..=128).contains(&instance_id.len()) || !instance_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid());
    }
    HeaderValue::from_str(instance_id).map_err(|_| invalid())
}

#[cfg(test)]
mod tests;
