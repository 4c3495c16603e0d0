//! Where the instances' data is, and who opens it.
//!
//! A SQLite file is opened once, for all instances of its service in this process. A PostgreSQL database is opened by each
//! instance for itself, as if it were a separate process: instances then share it as processes do, and one that is
//! killed loses its connections.

use std::{future::Future, path::PathBuf, pin::Pin};

use meshwork_events::{EventStore, OpenError, writer::Decider};
use meshwork_process::say_if_slow;

use super::{Config, Databases, Error, Service, Views};

/// One database of a fleet.
pub(super) struct Location {
    url: String,
    home: Home,
}

enum Home {
    File(PathBuf),
    /// The name of a PostgreSQL database.
    Server(String),
}

impl Location {
    /// The database of the `index`th instance of a service: write sides share one, and every private view has its own.
    pub(super) fn of(service: Service, index: usize, config: &Config) -> Self {
        let name = service.name();
        let view = |prefix: &str| {
            let path = config.data_dir.join(format!("{prefix}query-{index}.db"));
            // A view that loses its last commits in a power failure folds them again.
            Self { url: format!("sqlite://{}?synchronous=normal", path.display()), home: Home::File(path) }
        };
        match (&config.databases, service) {
            (Databases::Sqlite, Service::Query) => view(""),
            (Databases::Sqlite, Service::Customer | Service::Order) => {
                let path = config.data_dir.join(format!("{name}.db"));
                Self { url: format!("sqlite://{}", path.display()), home: Home::File(path) }
            }
            // Not the views that an earlier run has folded from other logs in the same folder.
            (Databases::Postgres { url, views: Views::Private }, Service::Query) => {
                view(&format!("{}-", url.database()))
            }
            (Databases::Postgres { url, .. }, _) => {
                let (database, url) = url.of_service(name);
                Self { url, home: Home::Server(database) }
            }
        }
    }

    /// Where it is, in a word.
    pub(super) fn shown(&self) -> String {
        match &self.home {
            Home::File(path) => path.display().to_string(),
            Home::Server(database) => format!("postgres:{database}"),
        }
    }

    /// The file that it is.
    pub(super) fn into_file(self) -> Option<PathBuf> {
        match self.home {
            Home::File(path) => Some(path),
            Home::Server(_) => None,
        }
    }

    fn failed(self, source: OpenError) -> Error {
        match self.home {
            Home::File(path) => Error::Store { path, source },
            Home::Server(database) => Error::Database { database, source },
        }
    }
}

/// The stores of a fleet.
pub(super) struct Stores {
    pub(super) customer: Source<meshwork_customer::Customers>,
    pub(super) order: Source<meshwork_order::Orders>,
    /// One for each instance.
    pub(super) query: Vec<Source<meshwork_query::View>>,
}

impl Stores {
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let location = |service, index| Location::of(service, index, config);
        let customer = location(Service::Customer, 1);
        let customer = Source::open(customer, |url| Box::pin(meshwork_customer::open(url))).await?;
        let order = Source::open(location(Service::Order, 1), |url| Box::pin(meshwork_order::open(url))).await?;
        let mut query = Vec::new();
        for index in 1..=config.replicas.query {
            query.push(Source::open(location(Service::Query, index), |url| Box::pin(meshwork_query::open(url))).await?);
        }
        Ok(Self { customer, order, query })
    }

    pub(super) async fn close(&self) {
        self.customer.close().await;
        self.order.close().await;
        for store in &self.query {
            store.close().await;
        }
    }
}

type Opening<'a, D> = Pin<Box<dyn Future<Output = Result<EventStore<D>, OpenError>> + Send + 'a>>;
type Open<D> = for<'a> fn(&'a str) -> Opening<'a, D>;

/// Where an instance gets its store from.
pub(super) struct Source<D: Decider> {
    url: String,
    open: Open<D>,
    /// The store that all instances share; `None`: each opens its own.
    shared: Option<EventStore<D>>,
}

impl<D: Decider> Source<D> {
    async fn open(location: Location, open: Open<D>) -> Result<Self, Error> {
        let url = location.url.clone();
        // Also where it is not kept: then the database is there, and what is wrong with it is said now.
        let opened = match say_if_slow(location.shown(), open(&url)).await {
            Ok(opened) => opened,
            Err(error) => return Err(location.failed(error)),
        };
        let shared = match location.home {
            Home::File(_) => Some(opened),
            Home::Server(_) => {
                opened.close().await;
                None
            }
        };
        Ok(Self { url, open, shared })
    }

    /// A store for one run of an instance.
    pub(super) async fn take(&self) -> Result<EventStore<D>, OpenError> {
        match &self.shared {
            Some(store) => Ok(store.clone()),
            None => (self.open)(&self.url).await,
        }
    }

    /// At the end of a run.
    pub(super) async fn put_back(&self, store: &EventStore<D>) {
        if self.shared.is_none() {
            store.close().await;
        }
    }

    async fn close(&self) {
        if let Some(store) = &self.shared {
            store.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::PostgresUrl;

    fn shown(config: &Config) -> [String; 3] {
        Service::ALL.map(|service| Location::of(service, 2, config).shown())
    }

    #[test]
    fn every_service_has_a_database_named_after_the_urls_and_views_are_private_unless_told() {
        let url: PostgresUrl = "postgres://me:secret@db:5432/shop?sslmode=require".parse().expect("a database");
        let order = |config: &Config| Location::of(Service::Order, 1, config).url;
        let mut config = Config::new("/data");
        assert_eq!(shown(&config), ["/data/customer.db", "/data/order.db", "/data/query-2.db"]);
        config.databases = Databases::Postgres { url: url.clone(), views: Views::Private };
        assert_eq!(
            order(&config),
            "postgres://?dbname=shop_order&host=db&password=secret&port=5432&sslmode=require&user=me"
        );
        assert_eq!(shown(&config), ["postgres:shop_customer", "postgres:shop_order", "/data/shop-query-2.db"]);
        config.databases = Databases::Postgres { url, views: Views::Shared };
        assert_eq!(shown(&config)[2], "postgres:shop_query");
    }
}
