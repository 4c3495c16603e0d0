//! The whole mesh in this process: a registry, and any number of instances of customer, order and query.
//!
//! Every instance has its own listener and its own place in the registry, exactly as if it were a process; what
//! they share is what one process may share: a SQLite file for each write side, and one view of the registry. On PostgreSQL
//! each opens the database for itself.
//! An instance that ends unexpectedly is started again, with backoff.

mod config;
mod databases;
mod error;
mod identities;
mod new_files;
mod parts;
mod ports;
mod service;
mod slot;
mod store;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use meshwork::{
    Mesh,
    contract::meshwork::registry::v1::InstanceStatus,
    discovery::EndpointSet,
    file_lock::FileLock,
    identity::{REGISTRY, Security},
};
use meshwork_registry::policies::PolicyStore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use identities::{Identities, OPERATOR_FOLDER};
use ports::{Ports, listen};
use slot::Slot;
use store::{Location, Stores};

pub use config::{Config, InvalidReplicas, Replicas};
pub use databases::{Databases, InvalidPostgresUrl, PostgresUrl, Views};
pub use error::Error;
pub use ports::Moved;
pub use service::Service;
pub use slot::Instance;

/// How long all instances together may take to be there; a cold start takes a fraction of a second.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running mesh. Dropped, it ends at once, as if killed; [`stop`](Self::stop) drains it.
pub struct Fleet {
    registry: Slot,
    registry_addr: SocketAddr,
    members: Vec<Slot>,
    stores: Arc<Stores>,
    moved: Vec<Moved>,
    meshes: Meshes,
    operator_folder: Option<PathBuf>,
    /// Renews certificates.
    _renewal: Option<AbortOnDropHandle<()>>,
    /// Held as long as the mesh runs.
    _lock: FileLock,
}

impl Fleet {
    /// Starts a mesh, and returns once every instance serves.
    ///
    /// # Errors
    /// [`Error`]; then nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let (lock, new_files) = config.lock_data_dir(&database_files(&config)).await?;
        let listener = listen(config.registry_addr).await?;
        let registry_addr =
            listener.local_addr().map_err(|source| Error::Listen { address: config.registry_addr, source })?;
        config.clear_cache_dir()?;
        let stores = Arc::new(Stores::open(&config).await?);
        let policies = open_policies(config.policy_file()).await?;

        let mut ports = Ports::from(config.base_port);
        let mut places = Vec::new();
        for service in Service::ALL {
            for index in 1..=config.replicas.of(service) {
                places.push((service, index, ports.next(service).await?));
            }
        }
        let identities = config.tls.then(|| Identities::open(config.tls_dir(), SystemTime::now())).transpose()?;
        let meshes = Meshes::open(&config, registry_addr, identities.as_ref())?;
        let registry_security = identities.as_ref().map_or(Ok(Security::Plain), |of| of.of(REGISTRY))?;
        let operator_folder = identities.as_ref().map(Identities::operator_folder);
        let config = Arc::new(config);
        // From now on calls are acknowledged.
        new_files.keep();
        let registry = Slot::start_registry(&config, policies, registry_security, listener);
        let start =
            |(service, index, listener)| Slot::start(service, index, &config, meshes.of(service), &stores, listener);
        let members = places.into_iter().map(start).collect();
        let moved = ports.moved();
        let renewal = identities.map(|identities| AbortOnDropHandle::new(tokio::spawn(identities.keep())));
        let fleet = Self {
            registry,
            registry_addr,
            members,
            stores,
            moved,
            meshes,
            operator_folder,
            _renewal: renewal,
            _lock: lock,
        };
        for service in Service::ALL {
            fleet.wait_until_serving(service.name(), config.replicas.of(service)).await?;
        }
        Ok(fleet)
    }

    /// An operator's view of the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.meshes.operator
    }

    /// Where the certificate of an operator is, with [`Config::tls`]: for the command line and grpcurl.
    pub fn operator_folder(&self) -> Option<&Path> {
        self.operator_folder.as_deref()
    }

    /// Where the registry is, for other processes.
    pub fn registry_url(&self) -> String {
        let scheme = if self.operator_folder.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.registry_addr)
    }

    /// Where the registry listens.
    pub fn registry_addr(&self) -> SocketAddr {
        self.registry_addr
    }

    /// The instances whose ports were taken.
    pub fn moved(&self) -> &[Moved] {
        &self.moved
    }

    /// The instances that run at the moment, the registry first.
    pub fn instances(&self) -> Vec<Instance> {
        std::iter::once(&self.registry).chain(&self.members).filter_map(Slot::instance).collect()
    }

    /// Ends an instance without a word, as if it were killed. It is started again, as another instance, after
    /// [`Config::restart_after`].
    pub async fn abort(&self, instance_id: &str) {
        for slot in self.slots_of(instance_id) {
            slot.abort(instance_id).await;
        }
    }

    /// Lets an instance drain and leave. It is not started again.
    pub async fn drain(&self, instance_id: &str) {
        for slot in self.slots_of(instance_id) {
            slot.stop().await;
        }
    }

    /// Ends the registry without a word; it is started again, without leases, on the same address.
    pub async fn abort_registry(&self) {
        if let Some(instance) = self.registry.instance() {
            self.registry.abort(&instance.instance_id).await;
        }
    }

    /// Ends everything without a word, as if it were killed, and returns when it is gone: the same folder can be opened
    /// again.
    pub async fn kill(self) {
        futures_util::future::join_all(self.members.iter().chain([&self.registry]).map(Slot::kill)).await;
        self.meshes.close().await;
        self.stores.close().await;
    }

    /// Drains everything, the registry last.
    pub async fn stop(self) {
        futures_util::future::join_all(self.members.iter().map(Slot::stop)).await;
        self.stores.close().await;
        self.meshes.close().await;
        self.registry.stop().await;
    }

    fn slots_of(&self, instance_id: &str) -> impl Iterator<Item = &Slot> {
        let is = move |slot: &&Slot| slot.instance().is_some_and(|instance| instance.instance_id == instance_id);
        self.members.iter().filter(is)
    }

    async fn wait_until_serving(&self, service: &str, wanted: usize) -> Result<(), Error> {
        let mut endpoints = self.meshes.operator.endpoints(service);
        let serving = |set: &EndpointSet| {
            set.endpoints.values().filter(|instance| instance.status() == InstanceStatus::Serving).count()
        };
        if timeout(START_LIMIT, endpoints.wait_for(|set| serving(set) >= wanted)).await.is_ok() {
            return Ok(());
        }
        let serving = serving(&endpoints.borrow());
        Err(Error::NotServing { service: service.to_owned(), serving, wanted, waited: START_LIMIT })
    }
}

/// The views of the mesh: without TLS all are one, with it each service's has its own identity.
struct Meshes {
    operator: Mesh,
    services: [Mesh; Service::ALL.len()],
}

impl Meshes {
    fn open(config: &Config, registry: SocketAddr, identities: Option<&Identities>) -> Result<Self, Error> {
        let open = |name: &str| {
            let security = identities.map_or(Ok(Security::Plain), |identities| identities.of(name))?;
            let mesh = Mesh::builder().registries([registry.to_string()]).connector(config.connector.clone());
            Ok::<_, Error>(mesh.cache_dir(config.cache_dir()).security(security).build()?)
        };
        let operator = open(OPERATOR_FOLDER)?;
        let of = |service: Service| if identities.is_some() { open(service.name()) } else { Ok(operator.clone()) };
        let [customer, order, query] = Service::ALL.map(of);
        Ok(Self { services: [customer?, order?, query?], operator })
    }

    fn of(&self, service: Service) -> &Mesh {
        let [customer, order, query] = &self.services;
        match service {
            Service::Customer => customer,
            Service::Order => order,
            Service::Query => query,
        }
    }

    async fn close(&self) {
        for mesh in self.services.iter().chain([&self.operator]) {
            mesh.close().await;
        }
    }
}

/// The databases that a mesh has in its data folder.
fn database_files(config: &Config) -> Vec<PathBuf> {
    let of = |service: Service| {
        (1..=config.replicas.of(service)).filter_map(move |index| Location::of(service, index, config).into_file())
    };
    Service::ALL.into_iter().flat_map(of).collect()
}

async fn open_policies(path: PathBuf) -> Result<PolicyStore, Error> {
    PolicyStore::open(&path).await.map_err(|source| Error::Policies { path, source })
}
