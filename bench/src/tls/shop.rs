//! A shop of processes with certificates, and what is waited for while they change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use meshwork::{
    Mesh,
    contract::meshwork::registry::v1::{InstanceStatus, ListInstancesRequest},
    identity::TlsMode,
};
use meshwork_cli::fleet::Replicas;
use meshwork_harness::{
    report::Failures,
    shop_processes::{Config, Instance, Programs, Protection, ShopProcesses, Store, Tls},
};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{
    error::Error,
    found::Found,
    traffic::{Traffic, figures_of},
};

/// Who has a certificate: the registry, the services, and this process.
pub(super) const HOLDERS: [&str; 5] =
    ["service/registry", "service/customer", "service/order", "service/query", "operator/harness"];
const SERVICES: [&str; 3] = ["customer", "order", "query"];
/// Instances of each service.
const REPLICAS: usize = 2;
/// How long a restarted process may take to be in the registry: a lease, and more.
const LIST_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What a process logs once it uses what is new in its files.
const TAKEN: &str = "a renewed certificate or bundle is in use";

/// A shop and its load.
pub(super) struct Shop {
    processes: ShopProcesses,
    folder: PathBuf,
    pub(super) traffic: Traffic,
}

impl Shop {
    /// Starts one on PostgreSQL, two instances of each service, in this mode, with the certificates in `folder`/tls.
    pub(super) async fn start(programs: &Programs, folder: &Path, mode: TlsMode) -> Result<Self, Error> {
        let config = Config {
            folder: folder.to_owned(),
            store: Store::Postgres,
            replicas: Replicas::all(REPLICAS),
            fronted: false,
            registries: 1,
            tls: Tls::Kept(Protection { mode, folder: certificates(folder) }),
        };
        let processes = ShopProcesses::start(programs, &config).await?;
        let traffic = Traffic::open(processes.mesh()).await?;
        Ok(Self { processes, folder: folder.to_owned(), traffic })
    }

    pub(super) fn mesh(&self) -> &Mesh {
        self.processes.mesh()
    }

    pub(super) fn registry(&self) -> &Arc<Instance> {
        &self.processes.registries()[0]
    }

    pub(super) fn services(&self) -> &[Arc<Instance>] {
        self.processes.services()
    }

    /// Another handle on the mesh for this process, in this mode; returns the one from before.
    pub(super) fn join_again(&mut self, mode: TlsMode) -> Result<Mesh, Error> {
        Ok(self.processes.join_again(&self.protection(mode))?)
    }

    /// How its processes are protected in a mode.
    pub(super) fn protection(&self, mode: TlsMode) -> Protection {
        Protection { mode, folder: certificates(&self.folder) }
    }

    /// A process that has not taken what is new in its files this often.
    pub(super) fn has_not_taken(&self, times: usize) -> Result<Option<&str>, Error> {
        for process in self.processes.all() {
            if fs::read_to_string(process.log()).map_err(Error::Log)?.matches(TAKEN).count() < times {
                return Ok(Some(process.name()));
            }
        }
        Ok(None)
    }

    /// Waits until the registry lists all instances of the services as serving, and, if they have them, with their identities.
    pub(super) async fn listed(&self, with_identities: &[&Arc<Instance>]) -> Result<(), Error> {
        let until = Instant::now() + LIST_LIMIT;
        loop {
            let missing = self.missing(with_identities).await?;
            match missing {
                None => return Ok(()),
                Some(missing) if Instant::now() > until => return Err(Error::NotListed(missing)),
                Some(_) => sleep(POLL).await,
            }
        }
    }

    /// What the registry does not say as it should.
    async fn missing(&self, with_identities: &[&Arc<Instance>]) -> Result<Option<String>, Error> {
        let mut registry = self.mesh().registry();
        let mut listed = Vec::new();
        for service in SERVICES {
            let request = ListInstancesRequest { service: service.into(), page_size: 100, ..Default::default() };
            match registry.list_instances(request).await {
                Ok(page) => listed.extend(page.into_inner().instances),
                // None has registered there, or it restarts.
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => {
                    return Ok(Some(service.to_owned()));
                }
                Err(status) => return Err(crate::load::Error::call("ListInstances")(status).into()),
            }
        }
        Ok(self.services().iter().find_map(|process| {
            let address = process.address()?.to_string();
            let instance = listed.iter().find(|instance| instance.address == address);
            let needs_identity = with_identities.iter().any(|one| Arc::ptr_eq(one, process));
            let good = instance.is_some_and(|instance| {
                instance.status() == InstanceStatus::Serving && !(needs_identity && instance.identity.is_empty())
            });
            (!good).then(|| process.name().to_owned())
        }))
    }

    /// Waits for its orders, counts what failed, and ends it.
    pub(super) async fn close(
        self,
        ended: &[crate::open_loop::Ended],
        during: &str,
        found: &mut Found,
    ) -> Result<(), Error> {
        let (figures, failures) = figures_of(ended, during);
        let mut all: Failures = failures;
        all.merge(self.traffic.settle().await);
        found.figures.merge(&figures);
        found.turns.rounds.push(figures);
        found.turns.failures.merge(all);
        drop(self.traffic);
        Ok(self.processes.close().await?)
    }
}

/// Where the certificates of a shop in `folder` are.
pub(super) fn certificates(folder: &Path) -> PathBuf {
    folder.join("tls")
}
