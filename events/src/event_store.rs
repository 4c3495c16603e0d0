//! An [`EventStore`] is a service's durable half: database, log and writer, opened once and shared by all its instances in a
//! process.
//!
//! Sharing is what keeps SQLite fast (one writer, larger batches), and lets every instance see each change as it commits.

use std::{error::Error, sync::Arc};

use meshwork::{
    cause::with_causes,
    server::{ServedStore, Server, StoreScope},
};

use crate::{
    outbox::{Outbox, OutboxError},
    store::{self, Database, Migration, StoreError},
    writer::{Decider, Writer},
};

/// The durable half of a service with the rules of `D`; clones share it.
pub struct EventStore<D: Decider> {
    outbox: Outbox,
    writer: Writer<D>,
    decider: Arc<D>,
}

impl<D: Decider> Clone for EventStore<D> {
    fn clone(&self) -> Self {
        Self { outbox: self.outbox.clone(), writer: self.writer.clone(), decider: self.decider.clone() }
    }
}

/// Why an event store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened or brought up to date.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event log in it cannot be opened.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl<D: Decider> EventStore<D> {
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

    /// Ties `server` to this store: the server registers with the store's id, and is healthy only while the store is.
    #[must_use]
    pub fn served_by(&self, server: Server, scope: StoreScope) -> Server {
        let store_id = self.outbox.store_id().to_owned();
        let place = self.outbox.place().to_owned();
        server.serves_store(ServedStore { store_id, place, scope }).depends_on(self.outbox.condition())
    }

    /// Commits what is under way, and accepts no more. Call it once, after all instances have ended.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}

impl OpenError {
    /// Whether the error may pass: the same database may be opened later.
    pub fn is_passing(&self) -> bool {
        let error = match self {
            Self::Store(error) => Some(error),
            Self::Outbox(error) => error.source().and_then(|source| source.downcast_ref()),
        };
        // Migrations whose commit was not answered may or may not have been made; the next open finds out.
        error.is_some_and(|error| matches!(error, StoreError::Unavailable(_) | StoreError::CommitUnknown(_)))
    }

    /// The error with all its causes, in one line.
    pub fn problem(&self) -> String {
        with_causes(self)
    }
}
