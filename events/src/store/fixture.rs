//! Makes databases for this crate's tests.

pub(crate) use meshwork_fixture::{Cluster, Engine, PgBouncer, Place, on_both_stores};

use super::{Database, open};

/// Opens the database of a place.
pub(crate) trait Open {
    /// With PostgreSQL every call is as if by another process.
    async fn open(&self) -> Database;
}

impl Open for Place {
    async fn open(&self) -> Database {
        open(&self.url).await.expect("a database")
    }
}
