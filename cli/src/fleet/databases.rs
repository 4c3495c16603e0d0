//! Which databases a fleet has.

use std::str::FromStr;

use meshwork_events::store;

/// The longest name that PostgreSQL does not cut, minus that of the service with the longest: two that were cut would be one.
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
    /// Each into its own SQLite file in the data folder, so that reads scale with the instances.
    #[default]
    Private,
    /// All into one PostgreSQL database.
    Shared,
}

/// A PostgreSQL database after which those of the services are named: of `postgres://HOST/shop` they are `shop_customer`,
/// `shop_order` and `shop_query`. It need not be there itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    url: store::PostgresUrl,
    database: String,
}

/// The text is not a URL of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// It names none.
    #[error("names no database: must be postgres://HOST/DATABASE")]
    NoName,
    /// PostgreSQL would cut the names that are made of it.
    #[error("the database's name must be at most {MAX_DATABASE_NAME} bytes long")]
    LongName,
    /// Something in it is wrong, or not supported.
    #[error(transparent)]
    Url(#[from] store::InvalidPostgresUrl),
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let url: store::PostgresUrl = text.parse()?;
        let database = url.database().filter(|name| !name.is_empty()).ok_or(InvalidPostgresUrl::NoName)?.to_owned();
        if database.len() > MAX_DATABASE_NAME {
            return Err(InvalidPostgresUrl::LongName);
        }
        Ok(Self { url, database })
    }
}

impl PostgresUrl {
    /// Its name.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The name and the URL of a service's database.
    pub(super) fn of_service(&self, service: &str) -> (String, String) {
        let name = format!("{}_{service}", self.database);
        let url = self.url.with_database(&name).text();
        (name, url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_database_or_has_something_wrong_is_refused() {
        let long = format!("postgres://db/{}", "x".repeat(MAX_DATABASE_NAME + 1));
        for bad in [
            "postgres://db",
            "postgres://db/",
            "postgres://db/?user=me",
            "mysql://db/shop",
            "postgres://db/shop?sslcrl=x",
            "postgres://me:se/cret@db",
            &long,
        ] {
            assert!(bad.parse::<PostgresUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_service_has_its_own_database_however_the_url_names_the_first() {
        for (url, expected) in [
            ("postgresql:///shop", "postgres://?dbname=shop_order"),
            ("postgres://db/?user=me&dbname=shop", "postgres://?dbname=shop_order&host=db&user=me"),
            ("postgres://me:a:b@[::1]/shop", "postgres://?dbname=shop_order&host=%3A%3A1&password=a%3Ab&user=me"),
        ] {
            let of_service = url.parse::<PostgresUrl>().expect("a database").of_service("order");
            assert_eq!(of_service, ("shop_order".to_owned(), expected.to_owned()), "{url}");
        }
    }
}
