//! A registry and a mesh in process, for the tests of a service.
//!
//! It is the registry of `meshwork-registry` on a loopback port, not an imitation: instances register, are found, drain and
//! die as they do in production. Each [`TestMesh`] is a separate mesh, so that tests may run at the same time.
//!
//! ```
//! use meshwork::{
//!     contract::grpc::health::v1::{HealthCheckRequest, health_client::HealthClient},
//!     server::Server,
//! };
//! use meshwork_testing::TestMesh;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let mesh = TestMesh::start().await;
//! // Your services go in here: |config| Server::new(config).add_service(..)
//! let one = mesh.serve("inventory", Server::new).await;
//! let other = mesh.serve("inventory", Server::new).await;
//!
//! let mut inventory = HealthClient::new(mesh.channel("inventory"));
//! inventory.check(HealthCheckRequest::default()).await.expect("both serve");
//! one.kill().await;
//! inventory.check(HealthCheckRequest::default()).await.expect("the other one serves");
//! other.drain().await;
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use meshwork::{
    Mesh,
    channel::Channel,
    contract::meshwork::registry::v1::InstanceStatus,
    server::{Config, Error, Server},
};
use meshwork_process::Listener;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How long an instance may take until the mesh has heard of it: far beyond what it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A registry, and this process's handle on its mesh. Dropped, the registry stops at once.
#[derive(Debug)]
pub struct TestMesh {
    mesh: Mesh,
    registry_url: String,
    _registry: AbortOnDropHandle<Result<(), Error>>,
}

impl TestMesh {
    /// Starts a registry on a free loopback port, and connects to it.
    ///
    /// # Panics
    /// If there is no free loopback port, or outside a Tokio runtime.
    pub async fn start() -> Self {
        let listener = listen().await;
        let address = listener.address().to_string();
        // Nothing was registered before the start, so that its first answer counts.
        let config = meshwork_registry::Config { grace: Duration::ZERO, ..meshwork_registry::Config::new(&address) };
        let registry = tokio::spawn(meshwork_registry::run(config, listener, std::future::pending()));
        Self {
            mesh: Mesh::connect(&address).expect("a loopback address, within a runtime"),
            registry_url: format!("http://{address}"),
            _registry: AbortOnDropHandle::new(registry),
        }
    }

    /// The handle on the mesh, for what connects to other services or announces itself.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The registry's URL, for processes that a test starts: their `--registry`.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// A channel to a service, as [`Mesh::channel`]. Calls to a service without instances fail with UNAVAILABLE after 3 s.
    pub fn channel(&self, service: &str) -> Channel {
        self.mesh.channel(service)
    }

    /// Starts an instance of `service` on a free loopback port, and waits until the mesh has heard of it. `server` makes the
    /// server from its config, in which it may change all but the service and the address; it is announced in this mesh.
    ///
    /// # Panics
    /// If the server cannot serve, or the registry refuses it.
    pub async fn serve(&self, service: &str, server: impl FnOnce(Config) -> Server) -> Instance {
        let listener = listen().await;
        let address = listener.address().to_string();
        let server = server(Config::new(service, &address)).announce(self.mesh.clone());
        let stop = CancellationToken::new();
        let mut task = AbortOnDropHandle::new(tokio::spawn(server.serve(listener, stop.clone().cancelled_owned())));

        let mut endpoints = self.mesh.endpoints(service);
        let id = async {
            loop {
                let found = endpoints.borrow_and_update().endpoints.iter().find_map(|(id, instance)| {
                    let is_it = instance.address == address && instance.status() == InstanceStatus::Serving;
                    is_it.then(|| id.clone())
                });
                if let Some(id) = found {
                    return id;
                }
                endpoints.changed().await.expect("the mesh is open");
            }
        };
        let id = tokio::select! {
            id = timeout(LIMIT, id) => id.unwrap_or_else(|_| panic!("{service} is not SERVING within {LIMIT:?}")),
            ended = &mut task => panic!("{service} does not serve: {ended:?}"),
        };
        Instance { id, address, stop, task }
    }
}

/// An instance of a service in a [`TestMesh`]. Dropped, it dies as by [`Instance::kill`].
#[derive(Debug)]
pub struct Instance {
    id: Arc<str>,
    address: String,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), Error>>,
}

impl Instance {
    /// Its id, which its answers carry in the header [`meshwork::headers::INSTANCE`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops it in order, as SIGTERM does: it takes no new calls, finishes those under way, and leaves the registry.
    ///
    /// # Panics
    /// If it had failed before, or fails now.
    pub async fn drain(self) {
        self.stop.cancel();
        let ended = self.task.await.expect("the instance has not panicked");
        ended.unwrap_or_else(|error| panic!("the instance has failed: {error}"));
    }

    /// Ends it at once, as a crash does: its connections break, and the registry lists it until its lease ends.
    pub async fn kill(self) {
        self.task.abort();
        // The error says that it was aborted.
        let _ = self.task.await;
    }
}

async fn listen() -> Listener {
    let address = "127.0.0.1:0".parse().expect("an address");
    Listener::bind("--listen", &address).await.unwrap_or_else(|failure| panic!("{failure}"))
}
