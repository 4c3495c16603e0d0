//! Meshwork's registry: which instances of which services are there, kept by leases, which policies hold for them, and who may
//! call them; all streamed to watchers. Beside that, which gRPC service belongs to which of them.
//!
//! Modules are listed in the order in which a request passes through them: [`RegistryServer`] takes it from the network,
//! `request` checks it, `access` says whether its caller may, [`Registry`] answers it from a [`backend`], which keeps a [`table`]. [`run`] puts them together.

mod access;
#[cfg(feature = "program")]
mod args;
mod authorization_service;
mod binding_service;
mod json;
mod lines;
mod mount;
mod policy_service;
mod renewals;
mod request;
mod service;
mod status;
mod store_service;

pub mod backend;
pub mod policies;
pub mod table;

mod wire;

pub mod limits;

#[cfg(test)]
mod tests;

use std::{future::Future, io, sync::Arc, time::Duration};

use futures_util::Stream;
use meshwork::{
    contract::meshwork::registry::v1::{
        authorization_service_server::AuthorizationServiceServer, binding_service_server::BindingServiceServer,
        policy_service_server::PolicyServiceServer, store_service_server::StoreServiceServer,
    },
    identity::Security,
    server::{self, Server},
};
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "program")]
pub use args::Args;
pub use json::ProtobufJson;
pub use mount::RegistryServer;
pub use service::Registry;
pub use status::DOMAIN;

use backend::Memory;
use limits::{MAX_STREAMS, MAX_WATCHES};
use policies::PolicyStore;

/// How long a registry that has just started calls its snapshots provisional, unless told otherwise: the default lease, in
/// which every instance tries a renewal and learns that it must register again, and half as much for the attempt.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(15);

/// Who needs the registry, beside operators. What each of them may change is decided with the request.
const CALLERS: &[&str] = &["service/*"];

/// What a registry is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it serves.
    pub server: server::Config,
    /// For how long after the start snapshots are provisional. Default [`DEFAULT_GRACE`]; zero: never.
    pub grace: Duration,
    /// How connections are protected, and so whether callers have identities, and who may do what. Default: plain, in which everyone
    /// may do everything.
    pub security: Security,
    /// The policies, the rules and the bindings. Default: none, and those that are set are lost with the last clone of this.
    pub policies: PolicyStore,
}

impl Config {
    /// The defaults for a registry that is reached at `advertise` (`host:port`).
    pub fn new(advertise: impl Into<String>) -> Self {
        let mut server = server::Config::new("registry", advertise);
        // Every process of the mesh holds a connection for its watch.
        server.limits.connections = MAX_WATCHES;
        server.limits.concurrent_streams = MAX_STREAMS;
        Self { server, grace: DEFAULT_GRACE, security: Security::Plain, policies: PolicyStore::default() }
    }
}

/// Serves a registry on `incoming` until `shutdown` ends and the server has drained.
///
/// # Errors
/// A config that cannot be served.
pub async fn run<IO, I, F>(config: Config, incoming: I, shutdown: F) -> Result<(), server::Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    let memory = Memory::new(config.grace, config.policies);
    let server = Server::new(config.server).security(config.security.clone()).authorization_rules(memory.own_rules());
    let registry = Registry::new(Arc::new(memory.clone()), server.draining(), config.security.mode());
    let server = server
        .add_mesh_service_for(CALLERS, RegistryServer::new(registry.clone()))
        .add_mesh_service_for(CALLERS, PolicyServiceServer::new(registry.clone()))
        .add_mesh_service_for(CALLERS, AuthorizationServiceServer::new(registry.clone()))
        .add_mesh_service_for(CALLERS, BindingServiceServer::new(registry.clone()))
        .add_mesh_service_for(CALLERS, StoreServiceServer::new(registry));
    tokio::select! {
        result = server.serve(incoming, shutdown) => result,
        never = memory.keep_time() => match never {},
    }
}
