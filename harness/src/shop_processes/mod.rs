//! The whole shop as teams run it: every instance is its own process, which may be killed, stopped and started again.
//!
//! Databases outlive their processes, ports do not: only the registry comes back where it was. Every process is this
//! one's child, and is gone when its [`Instance`] is dropped.

mod backups;
mod command;
mod error;
mod front;
mod instance;
mod programs;
mod renewal;
mod serve;
mod tls;

#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf, sync::Arc};

use futures_util::future::try_join_all;
use meshwork::{
    Mesh,
    identity::{Identity, TlsMode},
};
use meshwork_cli::fleet::Replicas;
use meshwork_fixture::{Server, restart_port};

use renewal::Renewal;

pub use backups::{Backups, move_files};
pub use command::Command;
pub use error::Error;
pub use instance::Instance;
pub use programs::Programs;
pub use serve::serve;
pub use tls::{Protection, Tls};

/// Where the write sides keep their data. Views are SQLite files with either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// A file for each service; so one process for each of customer and order
    Sqlite,
    /// A server that it starts, with a database for each service
    Postgres,
}

impl Store {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// What a shop is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where databases, logs and caches are kept. Other users must be able to search its parents: PostgreSQL does not run
    /// as root.
    pub folder: PathBuf,
    /// What the write sides keep their data in.
    pub store: Store,
    /// How many processes of each service; on SQLite one of each but query.
    pub replicas: Replicas,
    /// Whether the instances of services are reached through addresses whose connections can be cut and stalled, or where
    /// they listen.
    pub fronted: bool,
    /// How many registries, which know nothing of each other.
    pub registries: usize,
    /// How connections are protected.
    pub tls: Tls,
}

/// The processes of a shop. Dropped, all of them are killed; [`close`](Self::close) ends them in order.
pub struct ShopProcesses {
    registries: Vec<Arc<Instance>>,
    services: Vec<Arc<Instance>>,
    registry_urls: Vec<String>,
    mesh: Mesh,
    backups: Backups,
    command: Command,
    _renewal: Option<Renewal>,
    // Last, so that the server outlives its clients.
    postgres: Option<Arc<Server>>,
}

impl ShopProcesses {
    /// Starts all processes, and waits until each is ready.
    pub async fn start(programs: &Programs, config: &Config) -> Result<Self, Error> {
        let folder = |path: PathBuf| match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Folder { path, source }),
        };
        let postgres = match config.store {
            Store::Sqlite => None,
            Store::Postgres => Some(Arc::new(Server::start(folder(config.folder.join("postgres"))?)?)),
        };
        let data = folder(config.folder.join("data"))?;
        let logs = folder(config.folder.join("logs"))?;
        let (protection, renewal) = match &config.tls {
            Tls::Off => (None, None),
            Tls::Kept(protection) => (Some(protection.clone()), None),
            Tls::Renewed => {
                let folder = folder(config.folder.join("tls"))?;
                let renewal = Renewal::start(&folder)?;
                (Some(Protection { mode: TlsMode::Strict, folder }), Some(renewal))
            }
        };
        let protection = protection.as_ref();

        let mut registries = Vec::new();
        let mut urls = Vec::new();
        for number in 1..=config.registries {
            let address = format!("127.0.0.1:{}", restart_port().map_err(Error::Port)?);
            urls.push(format!("http://{address}"));
            let mut args = vec!["--listen".to_owned(), address];
            if protection.is_some() {
                let policies = data.join(format!("policies-{number}.json")).display().to_string();
                args.extend(["--policy-file".to_owned(), policies]);
            }
            let registry = Instance::new(programs, "registry", number, args, &logs);
            protection.into_iter().for_each(|protection| registry.protect(protection));
            registries.push(Arc::new(registry));
        }
        try_join_all(registries.iter().map(|registry| registry.start())).await?;
        let registry_urls = urls.join(",");

        let replicas = [
            ("customer", config.replicas.customer),
            ("order", config.replicas.order),
            ("query", config.replicas.query),
        ];
        let numbered =
            replicas.into_iter().flat_map(|(service, count)| (1..=count).map(move |number| (service, number)));
        let services: Vec<_> = numbered
            .map(|(service, number)| {
                let file = |name: &str| format!("sqlite://{}", data.join(name).display());
                let database_url = match &postgres {
                    // A view that loses its last commits in a power failure folds them again.
                    _ if service == "query" => file(&format!("query-{number}.db?synchronous=normal")),
                    Some(server) => server.url(service),
                    None => file(&format!("{service}.db")),
                };
                let cache_dir = config.folder.join("endpoints").join(format!("{service}-{number}"));
                let args = ["--registry", &registry_urls, "--database-url", &database_url, "--cache-dir"];
                let args = args.into_iter().map(str::to_owned).chain([cache_dir.to_string_lossy().into_owned()]);
                let instance = Instance::new(programs, service, number, args.collect(), &logs);
                protection.into_iter().for_each(|protection| instance.protect(protection));
                Arc::new(if config.fronted { instance.fronted() } else { instance })
            })
            .collect();
        try_join_all(services.iter().map(|instance| instance.start())).await?;
        let mesh = join(&urls, protection)?;
        let flags = protection.map(Protection::operator_flags);
        let command = Command::new(programs, &registry_urls, flags.unwrap_or_default(), &logs);
        let backups = Backups::new(folder(config.folder.join("backups"))?, data, postgres.clone());
        Ok(Self { registries, services, registry_urls: urls, mesh, backups, command, _renewal: renewal, postgres })
    }

    /// This process's own handle on the mesh: it finds and reaches the services as any other process would.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// With which identity its operator connects; `None`: in plain text.
    pub fn identity(&self) -> Option<&Identity> {
        self.mesh.security().identity()
    }

    /// Gives this process another handle on the mesh, with connections that are protected so, and returns the one that it had. Processes
    /// of the shop follow with their [next starts](Instance::protect).
    pub fn join_again(&mut self, protection: &Protection) -> Result<Mesh, Error> {
        let mesh = join(&self.registry_urls, Some(protection))?;
        Ok(std::mem::replace(&mut self.mesh, mesh))
    }

    /// The processes of the registries.
    pub fn registries(&self) -> &[Arc<Instance>] {
        &self.registries
    }

    /// All processes.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.iter().chain(&self.registries)
    }

    /// Copies of its databases.
    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// Its operator's command line.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The processes of all services.
    pub fn services(&self) -> &[Arc<Instance>] {
        &self.services
    }

    /// The processes of a service, in the order of their numbers.
    pub fn instances(&self, service: &str) -> Vec<&Arc<Instance>> {
        self.services.iter().filter(|instance| instance.service() == service).collect()
    }

    /// The PostgreSQL server, if the shop has one.
    pub fn postgres(&self) -> Option<&Arc<Server>> {
        self.postgres.as_ref()
    }

    /// Ends all processes by SIGTERM, the registry last. An error if one does not end well, or does not run.
    pub async fn close(self) -> Result<(), Error> {
        self.mesh.close().await;
        try_join_all(self.services.iter().map(|instance| instance.terminate())).await?;
        try_join_all(self.registries.iter().map(|registry| registry.terminate())).await.map(drop)
    }
}

fn join(registries: &[String], protection: Option<&Protection>) -> Result<Mesh, Error> {
    let security = protection.map(Protection::security).transpose()?.unwrap_or_default();
    Ok(Mesh::builder().registries(registries).security(security).build()?)
}
