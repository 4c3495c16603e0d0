//! A registry in this process, and echo processes that join it.

use std::{path::PathBuf, time::Duration};

use meshwork::{
    Mesh, MeshError,
    contract::meshwork::registry::v1::{Instance, InstanceStatus},
    identity::Security,
};
use meshwork_harness::{
    certificates::{self, AN_HOUR, Certificates},
    process::{self, Process},
};
use meshwork_process::{Failure, HostPort, Listener};
use tokio::{task::JoinHandle, time::timeout};

/// How long endpoints may take to be seen in the mesh; a thousand of them take a second or two.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long ended endpoints may be seen in the mesh: three times as long as their leases.
const GONE_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no echo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The registry cannot listen.
    #[error("the registry cannot be started: {0}")]
    Registry(Failure),
    /// This process's own view of the mesh.
    #[error("the mesh cannot be reached: {0}")]
    Mesh(#[from] MeshError),
    /// The certificates of an encrypted mesh.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// A process under test.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// This program does not know its own path.
    #[error("cannot find this program: {0}")]
    Program(std::io::Error),
    /// Endpoints did not come up.
    #[error("{service} has {serving} of {wanted} endpoints after {} s", START_LIMIT.as_secs())]
    Missing {
        /// The service.
        service: String,
        /// How many serve.
        serving: usize,
        /// How many should.
        wanted: usize,
    },
    /// Endpoints did not go away.
    #[error("{service} still has {left} endpoints after {} s", GONE_LIMIT.as_secs())]
    Left {
        /// The service.
        service: String,
        /// How many are there.
        left: usize,
    },
    /// An endpoint cannot be told how to behave.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where it is.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A registry, this process's view of it, and how others join.
pub(crate) struct Echo {
    program: PathBuf,
    registry: JoinHandle<()>,
    url: String,
    mesh: Mesh,
    certificates: Option<Certificates>,
}

/// The client under measure, and this process, in a mesh with certificates.
const CLIENT: &str = "service/bench";

impl Echo {
    /// Starts a registry on a free port, in plain mode.
    pub(crate) async fn start() -> Result<Self, Error> {
        Self::start_with(None).await
    }

    /// The same in strict mode: all that join need a certificate.
    pub(crate) async fn start_encrypted(certificates: Certificates) -> Result<Self, Error> {
        Self::start_with(Some(certificates)).await
    }

    async fn start_with(certificates: Option<Certificates>) -> Result<Self, Error> {
        let security = |name| match &certificates {
            None => Ok(Security::Plain),
            Some(certificates) => certificates.identity(name).map(Security::Strict),
        };
        let program = std::env::current_exe().map_err(Error::Program)?;
        let any: HostPort = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind("--listen", &any).await.map_err(Error::Registry)?;
        let address = listener.address().to_string();
        // No instance was there before, so there is none to wait for.
        let config = meshwork_registry::Config {
            grace: Duration::ZERO,
            security: security("service/registry")?,
            ..meshwork_registry::Config::new(&address)
        };
        let registry = tokio::spawn(async move {
            if let Err(error) = meshwork_registry::run(config, listener, std::future::pending()).await {
                eprintln!("the registry has ended: {error}");
            }
        });
        let mesh = Mesh::builder().registries([&address]).security(security(CLIENT)?).build()?;
        Ok(Self { program, registry, url: format!("http://{address}"), mesh, certificates })
    }

    /// This process's view of the mesh.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Where the registry is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The `--tls-dir` of clients, if the mesh is encrypted.
    pub(crate) fn certificate_of_client(&self) -> Option<String> {
        self.certificates.as_ref().map(|certificates| certificates.flag(CLIENT))
    }

    /// Starts a process of a service, with its certificate if the mesh is encrypted.
    pub(crate) fn spawn_service(&self, service: &str, flags: &[&str]) -> Result<Process, Error> {
        let mut all = vec!["--service", service];
        let folder = match &self.certificates {
            None => None,
            Some(certificates) => {
                let path = format!("service/{service}");
                certificates.issue(&path, AN_HOUR)?;
                Some(certificates.flag(&path))
            }
        };
        all.extend(folder.iter().flat_map(|folder| ["--tls-dir", folder]));
        self.spawn(&[&all, flags].concat())
    }

    /// Starts a process with further flags, and does not wait for it.
    pub(crate) fn spawn(&self, flags: &[&str]) -> Result<Process, Error> {
        let common = ["echo", "--registry", &self.url, "--cache-dir", ""];
        Ok(Process::start(&self.program, &[&common, flags].concat())?)
    }

    /// The endpoints of a service, once that many serve.
    pub(crate) async fn serving(&self, service: &str, wanted: usize) -> Result<Vec<Instance>, Error> {
        let mut endpoints = self.mesh.endpoints(service);
        let serves = |instance: &Instance| instance.status() == InstanceStatus::Serving;
        let count = |set: &meshwork::discovery::EndpointSet| set.endpoints.values().filter(|i| serves(i)).count();
        let waited = timeout(START_LIMIT, endpoints.wait_for(|set| count(set) >= wanted)).await.is_ok();
        let set = endpoints.borrow().clone();
        if !waited {
            return Err(Error::Missing { service: service.to_owned(), serving: count(&set), wanted });
        }
        Ok(set.endpoints.values().filter(|instance| serves(instance)).map(|instance| (**instance).clone()).collect())
    }

    /// Waits until no endpoint of a service is left in the mesh. A process that was in a hurry leaves some to their leases.
    pub(crate) async fn gone(&self, service: &str) -> Result<(), Error> {
        let mut endpoints = self.mesh.endpoints(service);
        let waited = timeout(GONE_LIMIT, endpoints.wait_for(|set| set.endpoints.is_empty())).await.is_ok();
        let left = endpoints.borrow().endpoints.len();
        if waited { Ok(()) } else { Err(Error::Left { service: service.to_owned(), left }) }
    }

    /// Ends the registry and this process's view of it.
    pub(crate) async fn stop(self) {
        self.mesh.close().await;
        self.registry.abort();
        // It was aborted, or has ended.
        let _ = self.registry.await;
    }
}
