//! Which databases a fleet has.

use std::str::FromStr;

/// The longest name that PostgreSQL does not cut, less that of the service with the longest: two that were cut would be one.
const MAX_DATABASE_NAME: usize = 63 - "_customer".len();

/// Where a fleet keeps its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Databases {
    /// In SQLite files in the data folder: one for each write side, one for each instance of query.
    #[default]
    Sqlite,
    /// In a PostgreSQL database for each write side.
    Postgres {
        /// The database after which they are named.
        url: PostgresUrl,
        /// Where the views of query are.
        views: Views,
    },
}

/// Where the instances of query fold their views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Views {
    /// Each into a SQLite file of its own in the data folder, so that reads scale with the instances.
    #[default]
    Private,
    /// All into one PostgreSQL database.
    Shared,
}

/// A PostgreSQL database after which those of the services are named: of `postgres://HOST/shop` they are `shop_customer`,
/// `shop_order` and `shop_query`. It need not be there itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Scheme, user and host.
    server: String,
    database: String,
    /// With their question mark.
    parameters: String,
}

/// The text is no URL of a PostgreSQL database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be postgres://USER@HOST:PORT/DATABASE, with a name of at most {MAX_DATABASE_NAME} bytes and no dbname=")]
pub struct InvalidPostgresUrl;

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let (path, parameters) = text.split_at(text.find('?').unwrap_or(text.len()));
        let (server, database) = path.rsplit_once('/').ok_or(InvalidPostgresUrl)?;
        let is_server = ["postgres://", "postgresql://"].iter().any(|scheme| server.starts_with(scheme));
        let is_name = (1..=MAX_DATABASE_NAME).contains(&database.len()) && !database.contains(['@', ':']);
        // It would name one database for all.
        let renamed = parameters.trim_start_matches('?').split('&').any(|parameter| parameter.starts_with("dbname="));
        if !is_server || !is_name || renamed {
            return Err(InvalidPostgresUrl);
        }
        Ok(Self { server: server.to_owned(), database: database.to_owned(), parameters: parameters.to_owned() })
    }
}

impl PostgresUrl {
    /// Its name.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The name and the URL of a service's database.
    pub(super) fn of_service(&self, service: &str) -> (String, String) {
        let Self { server, database, parameters } = self;
        let name = format!("{database}_{service}");
        let url = format!("{server}/{name}{parameters}");
        (name, url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_database_or_the_same_one_for_all_is_refused() {
        let long = format!("postgres://db/{}", "x".repeat(MAX_DATABASE_NAME + 1));
        for bad in [
            "postgres://db",
            "postgres://db/",
            "postgres://db/?user=me",
            "mysql://db/shop",
            "postgres://db/shop?user=me&dbname=shop",
            "postgres://me:se/cret@db",
            &long,
        ] {
            assert_eq!(bad.parse::<PostgresUrl>(), Err(InvalidPostgresUrl), "{bad}");
        }
        assert!("postgresql:///shop".parse::<PostgresUrl>().is_ok());
    }
}
