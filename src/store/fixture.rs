//! New databases for tests, of either engine, and a PostgreSQL server that a test may break.

mod cluster;

pub(crate) use cluster::Cluster;

use std::env;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Database, open};

/// Where tests get their databases from.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Sqlite,
    /// The server of this URL, which names a database of which nothing is touched.
    Postgres(String),
}

impl Engine {
    /// The PostgreSQL server that tests may use. `None`, said aloud: there is none.
    pub(crate) fn postgres() -> Option<Self> {
        let url = env::var("MESHWORK_TEST_POSTGRES").ok().filter(|url| !url.is_empty());
        if url.is_none() {
            eprintln!("SKIPPED: set MESHWORK_TEST_POSTGRES");
        }
        url.map(Self::Postgres)
    }

    /// A place for a database that no other test uses.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Sqlite => {
                let folder = TempDir::new().expect("a temporary folder");
                let url = format!("sqlite://{}", folder.path().join("test.db").display());
                Place { url, home: Home::Folder { _folder: folder } }
            }
            Self::Postgres(server) => {
                let name = format!("meshwork_test_{}", Uuid::new_v4().simple());
                let (base, parameters) = server.split_once('?').map_or((server.as_str(), None), |(b, p)| (b, Some(p)));
                let host = base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
                Place { url: format!("{host}/{name}{parameters}"), home: Home::Server { url: server.clone(), name } }
            }
        }
    }
}

/// A place for a database; what is there is deleted with it.
pub(crate) struct Place {
    pub(crate) url: String,
    home: Home,
}

enum Home {
    Folder { _folder: TempDir },
    Server { url: String, name: String },
}

impl Place {
    /// Opens the database: with PostgreSQL every call is as if by another process.
    pub(crate) async fn open(&self) -> Database {
        open(&self.url).await.expect("a database")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Home::Server { url, name } = &self.home else { return };
        let (url, drop) = (url.clone(), format!("drop database if exists {name} with (force)"));
        // Not in the test's runtime, which cannot wait here.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                if let Ok(mut connection) = PgConnection::connect(&url).await {
                    let _ = connection.execute(AssertSqlSafe(drop)).await;
                }
            });
        });
        let _ = deleted.join();
    }
}

/// Makes two tests of each function: on SQLite, and on PostgreSQL where there is one.
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::fixture::Engine::Sqlite).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(engine) = $crate::store::fixture::Engine::postgres() {
                    super::$test(engine).await;
                }
            })+
        }
    };
}

pub(crate) use on_both_stores;
