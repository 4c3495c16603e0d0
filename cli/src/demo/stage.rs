//! The mesh in which the story plays: one that runs already, or a new one in a temporary folder.

use std::time::Duration;

use meshwork::Mesh;
use meshwork_process::{TlsArgs, to_stderr};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::watch, time::timeout};

use crate::{
    args::{DEFAULT_REGISTRY, mesh_of},
    directory::Directory,
    error::Error,
    fleet::{self, Fleet},
};

/// The services that the story needs.
const SERVICES: [&str; 3] = ["customer", "order", "query"];

/// How long a registry of this machine may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Where the story plays.
pub(super) enum Stage {
    /// In a mesh that was running before, which is left as it is.
    Running(Mesh),
    /// In a new mesh.
    Own {
        /// The mesh.
        fleet: Box<Fleet>,
        /// Its data; deleted at the end.
        _data_dir: TempDir,
    },
}

impl Stage {
    /// The mesh of `registry`; if none is named, the one at the default address; if nothing listens there, a new one.
    pub(super) async fn open(registry: &[String], tls: &TlsArgs) -> Result<Self, Error> {
        if !registry.is_empty() {
            return Self::join(registry, tls).await;
        }
        let default = [DEFAULT_REGISTRY.to_owned()];
        let listening = TcpStream::connect(DEFAULT_REGISTRY.trim_start_matches("http://"));
        if let Ok(Ok(_)) = timeout(CONNECT_LIMIT, listening).await {
            // If it cannot be joined, a story elsewhere would say nothing about it.
            let stage = Self::join(&default, tls).await?;
            to_stderr(format_args!("using the mesh at {DEFAULT_REGISTRY}"));
            return Ok(stage);
        }
        Self::build().await
    }

    /// The mesh.
    pub(super) fn mesh(&self) -> &Mesh {
        match self {
            Self::Running(mesh) => mesh,
            Self::Own { fleet, .. } => fleet.mesh(),
        }
    }

    /// In a new mesh: kills an instance of order once `after` orders have been placed. Returns which.
    pub(super) async fn accident(&self, mut placed: watch::Receiver<u32>, after: u32) -> Option<fleet::Instance> {
        let Self::Own { fleet, .. } = self else { return None };
        // An error means that the story has failed before.
        placed.wait_for(|placed| *placed >= after).await.ok()?;
        let victim = fleet.instances().into_iter().find(|instance| instance.service == "order")?;
        fleet.abort(&victim.instance_id).await;
        Some(victim)
    }

    /// Leaves the mesh as it was found.
    pub(super) async fn close(self) {
        match self {
            Self::Running(mesh) => mesh.close().await,
            Self::Own { fleet, .. } => fleet.stop().await,
        }
    }

    async fn join(registry: &[String], tls: &TlsArgs) -> Result<Self, Error> {
        let mesh = mesh_of(registry, tls, |mesh| mesh)?;
        let there = Directory::new(&mesh, registry).services().await?;
        let is_there = |name: &str| there.iter().any(|service| service.name == name && service.instance_count > 0);
        match SERVICES.into_iter().find(|name| !is_there(name)) {
            Some(service) => Err(Error::NoInstance { registry: registry.join(","), service }),
            None => Ok(Self::Running(mesh)),
        }
    }

    async fn build() -> Result<Self, Error> {
        let data_dir = tempfile::Builder::new().prefix("meshwork-demo-").tempdir().map_err(Error::TempDir)?;
        to_stderr(format_args!(
            "no mesh answers at {DEFAULT_REGISTRY}: starting one, in {}",
            data_dir.path().display()
        ));
        let fleet = Box::new(Fleet::start(fleet::Config::new(data_dir.path())).await?);
        Ok(Self::Own { fleet, _data_dir: data_dir })
    }
}
