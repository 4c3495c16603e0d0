//! What a fleet is started with.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use meshwork::{channel::Connector, file_lock::FileLock};

use super::{Databases, Error, Service, new_files::NewFiles};

/// The file in the data folder that one process holds at a time.
const LOCK: &str = "lock";

/// What a fleet is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the registry listens. Default: a free port of 127.0.0.1.
    pub registry_addr: SocketAddr,
    /// The ports of the instances, of 127.0.0.1: this one, and those after it. One in use is replaced by a free one.
    /// Default `None`: free ones.
    pub base_port: Option<u16>,
    /// The folder of the SQLite files, the policies and the last endpoint sets; made if it is missing.
    pub data_dir: PathBuf,
    /// Where the data is. Default: in `data_dir`.
    pub databases: Databases,
    /// How many instances of each service. Default: two.
    pub replicas: Replicas,
    /// How long an order waits for credit. Default 30 s.
    pub saga_deadline: Duration,
    /// How long an instance stays registered without a sign of life. Default 10 s.
    pub lease_ttl: Duration,
    /// How long the registry calls its snapshots provisional after a start. Default 15 s.
    pub grace: Duration,
    /// How long calls in progress may take when an instance leaves. Default 30 s.
    pub drain_limit: Duration,
    /// How long to wait before an instance that ended unexpectedly is started again; doubled for each failure in a row,
    /// up to 30 s. Default 500 ms.
    pub restart_after: Duration,
    /// How instances connect, to each other and to the registry. Default: TCP.
    pub connector: Connector,
    /// Whether all connections are TLS between identities (strict mode), with certificates that the fleet makes and renews in
    /// `data_dir/tls`. Default: no.
    pub tls: bool,
}

impl Config {
    /// The defaults, with all data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            registry_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            base_port: None,
            data_dir: data_dir.into(),
            databases: Databases::default(),
            replicas: Replicas::default(),
            saga_deadline: meshwork_order::SAGA_DEADLINE,
            lease_ttl: Duration::from_secs(10),
            grace: meshwork_registry::DEFAULT_GRACE,
            drain_limit: Duration::from_secs(30),
            restart_after: Duration::from_millis(500),
            connector: Connector::tcp(),
            tls: false,
        }
    }

    /// The folder of the last endpoint sets, for clients of this mesh that start while its registry is unreachable.
    pub fn cache_dir(&self) -> PathBuf {
        self.data_dir.join("endpoints")
    }

    /// The certificates, with [`tls`](Self::tls).
    pub(super) fn tls_dir(&self) -> PathBuf {
        self.data_dir.join("tls")
    }

    /// Where the registry keeps policies.
    pub(super) fn policy_file(&self) -> PathBuf {
        self.data_dir.join("policies.json")
    }

    /// Deletes the endpoint sets of an earlier run: the lock on the data folder proves that its instances are gone.
    /// Files that are not the mesh's stay.
    pub(super) fn clear_cache_dir(&self) -> Result<(), Error> {
        let path = self.cache_dir();
        let cleared = fs::read_dir(&path).and_then(|entries| {
            for entry in entries {
                let file = entry?.path();
                if file.extension().is_some_and(|extension| extension == "endpoints" || extension == "draft") {
                    fs::remove_file(file)?;
                }
            }
            Ok(())
        });
        match cleared {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.unwritable(path, source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn unwritable(&self, path: PathBuf, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::AlreadyExists => Error::NotAFolder { path },
            _ => Error::Folder { folder: self.data_dir.clone(), path, source },
        }
    }

    /// Makes the data folder and keeps other processes out of it. These are the databases that the mesh has in it.
    pub(super) async fn lock_data_dir(&self, databases: &[PathBuf]) -> Result<(FileLock, NewFiles), Error> {
        let files = NewFiles::before(&self.data_dir, LOCK);
        fs::create_dir_all(&self.data_dir).map_err(|source| self.unwritable(self.data_dir.clone(), source))?;
        let lock = self.data_dir.join(LOCK);
        let lock = FileLock::take(&lock).await.map_err(|source| self.unwritable(lock, source))?;
        let lock = lock.ok_or_else(|| Error::InUse { path: self.data_dir.clone() })?;
        Ok((lock, files.since_locked(databases, &self.policy_file())))
    }
}

/// The number of instances of each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// Instances of customer.
    pub customer: usize,
    /// Instances of order.
    pub order: usize,
    /// Instances of query.
    pub query: usize,
}

impl Replicas {
    /// As many as one process can sensibly hold.
    pub const MAX: usize = 16;

    /// The same number of each.
    pub fn all(count: usize) -> Self {
        Self { customer: count, order: count, query: count }
    }

    pub(super) fn of(self, service: Service) -> usize {
        match service {
            Service::Customer => self.customer,
            Service::Order => self.order,
            Service::Query => self.query,
        }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self::all(2)
    }
}

/// The text is not a number of instances for each service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReplicas {
    /// A part of it is none.
    #[error("must be SERVICE=COUNT,...: SERVICE is customer, order or query, and COUNT 1-{max}", max = Replicas::MAX)]
    Part,
    /// It has two for this service.
    #[error("{0} is given twice")]
    Twice(String),
}

impl FromStr for Replicas {
    type Err = InvalidReplicas;

    /// Reads `order=3,customer=2`; what is not named keeps its default.
    fn from_str(text: &str) -> Result<Self, InvalidReplicas> {
        let (mut replicas, mut given) = (Self::default(), Vec::new());
        for part in text.split(',') {
            let (service, count) = part.split_once('=').ok_or(InvalidReplicas::Part)?;
            let count =
                count.parse().ok().filter(|count| (1..=Self::MAX).contains(count)).ok_or(InvalidReplicas::Part)?;
            match service {
                "customer" => replicas.customer = count,
                "order" => replicas.order = count,
                "query" => replicas.query = count,
                _ => return Err(InvalidReplicas::Part),
            }
            if given.contains(&service) {
                return Err(InvalidReplicas::Twice(service.to_owned()));
            }
            given.push(service);
        }
        Ok(replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read_and_bad_ones_refused() {
        assert_eq!("order=3,customer=1".parse(), Ok(Replicas { customer: 1, order: 3, query: 2 }));
        for bad in ["", "order", "order=0", "order=17", "order=x", "orders=1", "order=1,"] {
            assert!(bad.parse::<Replicas>().is_err(), "{bad}");
        }
        let twice = "order=2,query=1,order=3".parse::<Replicas>().expect_err("twice");
        assert_eq!(twice.to_string(), "order is given twice");
    }

    #[test]
    fn endpoint_sets_of_an_earlier_run_are_forgotten_and_files_of_others_stay() {
        let home = tempfile::tempdir().expect("a folder");
        let config = Config::new(home.path());
        config.clear_cache_dir().expect("there is nothing yet");
        let folder = config.cache_dir();
        fs::create_dir(&folder).expect("made");
        for name in ["order.endpoints", "order.4711.draft", "notes.txt"] {
            fs::write(folder.join(name), "").expect("written");
        }
        config.clear_cache_dir().expect("cleared");
        let left: Vec<_> = fs::read_dir(&folder).expect("there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }
}
