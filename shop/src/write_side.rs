//! A service's durable half: database, log and writer, opened once and shared by all its instances in a process.
//!
//! Sharing is what keeps SQLite fast (one writer, larger batches), and lets every instance see each change as it commits.

use std::sync::Arc;

use meshwork::{
    event::{Outbox, OutboxError},
    store::{self, Database, Migration, StoreError},
    write::{Decider, Writer},
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
    /// Opens the database of `url`, brings the tables of log and `component` up to date, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        url: &str,
        component: &'static str,
        migrations: &[Migration],
        decider: D,
    ) -> Result<Self, OpenError> {
        let database = store::open(url).await?;
        let outbox = Outbox::open(database.clone()).await?;
        database.migrate(component, migrations).await?;
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

    /// Commits what is under way, and takes no more: for whoever opened it, once all instances have ended.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}
