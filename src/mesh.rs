//! A process's handle on the mesh.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::{InvalidAddress, parse_registry},
    channel::{Channel, ChannelContext, Connector, Locality, Peer, Shared},
    contract::meshwork::registry::v1::{
        policy_service_client::PolicyServiceClient, registry_service_client::RegistryServiceClient,
    },
    discovery::{self, Cache, Discovery, EndpointSet, RegistryState},
    identity::{REGISTRY, Security},
};

/// The most registries of a list: each costs every process a watch, and every instance a lease.
pub const MAX_REGISTRIES: usize = 8;

/// Services that start together know each other before this is over.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// A process's handle on the mesh: finds services, and makes channels to them. A cheap clone.
///
/// Nothing here waits for the registry: a mesh may be connected before its registry has started, and goes on with what it
/// knows while the registry is unreachable. Its tasks end with [`Mesh::close`], or with its last handle, channel and response.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    discovery: Discovery,
    /// Each registry of the list, for requests that go to all.
    registries: Vec<Arc<Shared>>,
    /// The first of the list that answers, for what one can answer.
    registry: Arc<Shared>,
    /// The channels that are still held.
    channels: Mutex<HashMap<String, Weak<Shared>>>,
    context: ChannelContext,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.stop.cancel();
    }
}

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// An address is not one.
    #[error("registry address {address:?} {source}")]
    InvalidAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        source: InvalidAddress,
    },
    /// No registry was given.
    #[error("no registry address was given")]
    NoRegistry,
    /// More than [`MAX_REGISTRIES`] were given.
    #[error("{0} registry addresses were given; at most {MAX_REGISTRIES} are allowed")]
    TooManyRegistries(usize),
    /// An address begins with `https://`, and the mesh has no identity: it would connect in plain text.
    #[error("registry address {0:?} asks for TLS, and this process has no certificate")]
    NoIdentity(String),
    /// There is no Tokio runtime to run its tasks.
    #[error("a mesh must be built within a Tokio runtime")]
    NoRuntime,
}

/// Builds a [`Mesh`].
#[derive(Clone, Debug, Default)]
pub struct MeshBuilder {
    registries: Vec<String>,
    connector: Connector,
    security: Security,
    cache_dir: Option<PathBuf>,
    locality: Locality,
}

impl MeshBuilder {
    /// The registries, "host:port", "http://host:port" or "https://host:port", at most [`MAX_REGISTRIES`]. Whether connections are
    /// encrypted is said by [`security`](Self::security); an "https://" without it is an error. They need not know of each other: this
    /// process sees the union of what they know, and a server registers at each. Those that are one store behind several
    /// addresses (they have one epoch) are used as one. What only one has to answer is asked of the first that answers.
    #[must_use]
    pub fn registries(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.registries = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// How connections are made, to the registry as well. Default: TCP.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// How connections are protected, to the registry as well; a [`Server`](crate::server::Server) that is announced in this mesh takes
    /// its own connections in the same way. The certificate is kept up to date with its files while the mesh runs. Default: plain.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// A folder for the last endpoint sets, used if the registry is unreachable at the start. Default: none are kept.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// The failure zone that this process runs in: its calls stay within while there is enough capacity. Default empty: in
    /// none, all endpoints are alike.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.locality.zone = zone.into();
        self
    }

    /// How many instances of a service this process uses at most, chosen so that each process has others; 0: all. Where a
    /// split or zones make groups of them, there may be one more for each. Default: 32.
    #[must_use]
    pub fn subset_size(mut self, size: usize) -> Self {
        self.locality.subset_size = size;
        self
    }

    /// Starts the mesh. Does not wait for the registry.
    ///
    /// # Errors
    /// Fails if an address is invalid, or outside a Tokio runtime.
    pub fn build(self) -> Result<Mesh, MeshError> {
        let peers = self.registries.iter().map(|address| registry_peer(address)).collect::<Result<Vec<_>, _>>()?;
        if peers.is_empty() {
            return Err(MeshError::NoRegistry);
        }
        if peers.len() > MAX_REGISTRIES {
            return Err(MeshError::TooManyRegistries(peers.len()));
        }
        let encrypted = self.registries.iter().find(|address| address.starts_with("https://"));
        if let (Security::Plain, Some(address)) = (&self.security, encrypted) {
            return Err(MeshError::NoIdentity(address.clone()));
        }
        Handle::try_current().map_err(|_| MeshError::NoRuntime)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let context =
            ChannelContext { locality: self.locality, connector: self.connector, security: self.security, tasks, stop };
        let alone = |peer: &Peer| Shared::fixed(REGISTRY, vec![peer.clone()], &context);
        let registries: Vec<_> = peers.iter().map(alone).collect();
        // One channel serves for both where there is but one.
        let registry = match &registries[..] {
            [registry] => registry.clone(),
            _ => Shared::fixed(REGISTRY, peers, &context),
        };
        let (discovery, cache) = (Discovery::new(registries.len()), self.cache_dir.map(Cache::new));
        context.tasks.spawn(context.stop.clone().run_until_cancelled_owned(discovery.clone().repeat_gauges()));
        if let Some(identity) = context.security.identity() {
            context.tasks.spawn(context.stop.clone().run_until_cancelled_owned(identity.clone().keep_current()));
        }
        if let Some(cache) = cache.clone() {
            context.tasks.spawn(cache.run(context.stop.clone()));
        }
        for (index, registry) in registries.iter().enumerate() {
            let watched_by = Channel::internal(registry.clone());
            let (discovery, cache, stop) = (discovery.clone(), cache.clone(), context.stop.clone());
            context.tasks.spawn(discovery::run(discovery, index, watched_by, cache, stop));
        }
        Ok(Mesh(Arc::new(Inner { discovery, registries, registry, channels: Mutex::default(), context })))
    }
}

/// Logs once that no instance of a service that is called has registered, after its instances had time to start. A
/// misspelled name would otherwise go unnoticed where no call waits for an answer, as with a subscription.
async fn tell_if_unknown(discovery: Discovery, service: String) {
    tokio::time::sleep(UNKNOWN_FOR).await;
    if discovery.is_unknown(&service) {
        tracing::warn!(service, "no instance of the service has registered at any registry yet: is its name right?");
    }
}

fn registry_peer(address: &str) -> Result<Peer, MeshError> {
    let plain = parse_registry(address);
    let plain = plain.map_err(|source| MeshError::InvalidAddress { address: address.to_owned(), source })?;
    Ok(Peer::new(plain, None).expect("an address that was checked can be called"))
}

impl Mesh {
    /// A mesh with options.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// A mesh with one registry, "host:port" or "http://host:port", and the defaults.
    ///
    /// # Errors
    /// Fails if the address is invalid, or outside a Tokio runtime.
    pub fn connect(registry: impl Into<String>) -> Result<Self, MeshError> {
        Self::builder().registries([registry.into()]).build()
    }

    /// A channel to a service. All channels to one service share their connections.
    ///
    /// Calls fail with INVALID_ARGUMENT if `service` is not 1-63 characters of `[a-z0-9-]`.
    pub fn channel(&self, service: &str) -> Channel {
        let inner = &self.0;
        let mut channels = inner.channels.lock();
        let open = channels.get(service).and_then(Weak::upgrade).unwrap_or_else(|| {
            let (discovery, registries, name) = (inner.discovery.clone(), inner.registries.clone(), service.to_owned());
            let explain =
                move || discovery.explain(&name, registries.iter().flat_map(|registry| registry.describe_endpoints()));
            let open = Shared::discovered(service, inner.discovery.endpoints(service), explain, &inner.context);
            let (discovery, stop) = (inner.discovery.clone(), inner.context.stop.clone());
            let unknown = tell_if_unknown(discovery, service.to_owned());
            inner.context.tasks.spawn(async move { stop.run_until_cancelled(unknown).await });
            channels.retain(|_, channel| channel.strong_count() > 0);
            channels.insert(service.to_owned(), Arc::downgrade(&open));
            open
        });
        Channel::keeping(open, inner.clone())
    }

    /// How its connections are protected.
    pub fn security(&self) -> &Security {
        &self.0.context.security
    }

    /// A channel to each registry of the list, in its order.
    pub fn registries(&self) -> Vec<Channel> {
        self.0.registries.iter().map(|registry| Channel::keeping(registry.clone(), self.0.clone())).collect()
    }

    /// How each registry of the list stands, in its order.
    pub(crate) fn registry_states(&self) -> watch::Receiver<Vec<RegistryState>> {
        self.0.discovery.registries()
    }

    /// A client of the first registry of the list that answers.
    pub fn registry(&self) -> RegistryServiceClient<Channel> {
        let large = self.to_registry().max_response_message_size(discovery::MAX_WATCH_RESPONSE);
        RegistryServiceClient::new(large).max_decoding_message_size(discovery::MAX_WATCH_RESPONSE)
    }

    /// A client of the policies of the first registry of the list that answers.
    pub fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.to_registry())
    }

    /// A channel to the first registry of the list that answers. It stays with that one while it answers.
    pub fn to_registry(&self) -> Channel {
        Channel::keeping(self.0.registry.clone(), self.0.clone())
    }

    /// What is known of a service, now and as it changes.
    pub fn endpoints(&self, service: &str) -> watch::Receiver<EndpointSet> {
        self.0.discovery.endpoints(service)
    }

    /// Waits until our own watch of a service shows the registry's revision `revision` of its life `epoch`; others see it
    /// at about the same time. Waits for ever if the registry restarts or goes away: set a limit.
    pub async fn saw(&self, service: &str, epoch: &str, revision: u64) {
        let mut endpoints = self.endpoints(service);
        if endpoints.wait_for(|set| set.has_seen(epoch, revision)).await.is_err() {
            // Discovery has ended without seeing it.
            std::future::pending::<()>().await;
        }
    }

    /// Stops every task of this mesh and waits until all have ended. Calls that are under way fail with UNAVAILABLE, and so
    /// do later ones.
    pub async fn close(&self) {
        self.0.context.stop.cancel();
        self.0.context.tasks.close();
        self.0.context.tasks.wait().await;
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_named() {
        for address in ["", "7600", "ftp://host:1", "http://host", "host:1/path"] {
            let error = Mesh::connect(address).expect_err(address);
            assert!(error.to_string().contains(&format!("{address:?}")), "{error}");
        }
        assert!(matches!(Mesh::connect("https://127.0.0.1:1"), Err(MeshError::NoIdentity(_))), "never in plain text");
        for address in ["127.0.0.1:1", "http://127.0.0.1:1", "http://localhost:1/"] {
            Mesh::connect(address).expect(address).close().await;
        }
    }

    #[test]
    fn without_a_runtime_there_is_an_error_and_no_panic() {
        assert!(matches!(Mesh::connect("127.0.0.1:1"), Err(MeshError::NoRuntime)));
        assert!(matches!(Mesh::builder().build(), Err(MeshError::NoRegistry)));
    }
}
