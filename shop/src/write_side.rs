//! A service's durable half: database, log and writer, opened once and shared by all its instances in a process.
//!
//! Sharing is what keeps SQLite fast (one writer, larger batches), and lets every instance see each change as it commits.

use std::{error::Error, sync::Arc};

use meshwork::{
    process::{Failure, with_causes},
    server::{ServedStore, Server, StoreScope},
};
use meshwork_events::{
    outbox::{Outbox, OutboxError},
    store::{self, Database, Migration, StoreError},
    writer::{Decider, Writer},
};

/// The durable half of a service with the rules of `D`; clones share it.
pub struct WriteSide<D: Decider> {
    outbox: Outbox,
    writer: Writer<D>,
    decider: Arc<D>,
}

impl<D: Decider> Clone for WriteSide<D> {
    fn clone(&self) -> Self {
        Self { outbox: self.outbox.clone(), writer: self.writer.clone(), decider: self.decider.clone() }
    }
}

/// Why a write side cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened or brought up to date.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event log in it cannot be opened.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl<D: Decider> WriteSide<D> {
    /// Opens the database of `url`, brings the tables of log and `service` up to date, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        url: &str,
        service: &'static str,
        migrations: &[Migration],
        decider: D,
    ) -> Result<Self, OpenError> {
        let database = store::open(url).await?;
        let outbox = Outbox::open(database.clone(), service).await?;
        database.migrate(service, migrations).await?;
        let decider = Arc::new(decider);
        let writer = Writer::start(outbox.clone(), decider.clone());
        Ok(Self { outbox, writer, decider })
    }

    /// The database, for reads.
    pub fn database(&self) -> &Database {
        self.outbox.database()
    }

    /// The event log.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The writer, for all changes.
    pub fn writer(&self) -> &Writer<D> {
        &self.writer
    }

    /// The rules.
    pub fn decider(&self) -> &D {
        &self.decider
    }

    /// The server as one of this store: in the registry it says so, and it is well only while the store is.
    #[must_use]
    pub fn served_by(&self, server: Server, scope: StoreScope) -> Server {
        let store_id = self.outbox.store_id().to_owned();
        let place = self.outbox.place().to_owned();
        server.serves_store(ServedStore { store_id, place, scope }).depends_on(self.outbox.condition())
    }

    /// Commits what is under way, and takes no more: for whoever opened it, once all instances have ended.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}

impl OpenError {
    /// Whether it is about the moment: the same database may be opened later.
    pub(crate) fn is_passing(&self) -> bool {
        let error = match self {
            Self::Store(error) => Some(error),
            Self::Outbox(error) => error.source().and_then(|source| source.downcast_ref()),
        };
        // Migrations whose commit was not answered were made or not; whoever opens the database again will see.
        error.is_some_and(|error| matches!(error, StoreError::Unavailable(_) | StoreError::CommitUnknown(_)))
    }

    /// As the error of `--database-url`, in one line; shows no more of `url` than [`store::shown`].
    pub fn into_failure(self, url: &str) -> Failure {
        Failure::flag("--database-url", store::shown(url), self.problem())
    }

    /// With all its causes, in one line.
    pub fn problem(&self) -> String {
        with_causes(self)
    }
}

#[cfg(test)]
mod tests {
    use meshwork_events::{
        store::Transaction,
        writer::{Outcome, Rows},
    };

    use super::*;

    /// Rules that are never asked.
    struct Nothing;

    impl Decider for Nothing {
        type Key = ();
        type Row = ();
        type Input = ();
        type Reply = ();
        type Refusal = std::convert::Infallible;

        fn keys(&self, (): &(), _: &mut Vec<()>) {}

        fn decide(&self, _: &Rows<(), ()>, (): &()) -> Result<Outcome<Self>, Self::Refusal> {
            Ok(Outcome { rows: Vec::new(), events: Vec::new(), reply: () })
        }

        async fn load(&self, _: &mut dyn Transaction, _: &[()]) -> Result<Vec<((), ())>, StoreError> {
            Ok(Vec::new())
        }

        async fn save(&self, _: &mut dyn Transaction, _: &[((), ())]) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_the_flags_error_and_shows_no_more_than_its_scheme() {
        for (url, shown) in [
            ("mysql://me:secret@host/db", "mysql://..."),
            ("mysql://host/db?user=u&password=secret", "mysql://..."),
            ("postgres:u:secret@host", "postgres://..."),
            ("mysql://u:p@secret@host/db", "mysql://..."),
            ("mysql://host/db#secret", "mysql://..."),
            ("u@secret:5432", "..."),
            ("secret", "..."),
            ("sqlite://order.db?mode=ro", "sqlite://order.db?mode=ro"),
        ] {
            let refused = WriteSide::open(url, "nothing", &[], Nothing).await.err().expect(url);
            let said = refused.into_failure(url).to_string();
            let expected = format!(
                "--database-url {shown}: database URL {shown:?} is not supported: use sqlite://FILE or postgres://HOST/DATABASE"
            );
            assert_eq!(said, expected, "{url}");
        }
    }
}
