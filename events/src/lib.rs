//! The durable half of a Meshwork service: the database, the log of events in it, the loop that writes both, and the
//! subscriptions to other services' logs.
//!
//! - [`store`]: one database from one URL, SQLite or PostgreSQL;
//! - [`outbox`]: what was committed, as a log that other services read in order from any position;
//! - [`writer`]: every durable change, decided by a pure [`Decider`](writer::Decider) and committed in batches;
//! - [`consumer`]: other services' events, folded into this store, each with its effects once;
//! - [`EventStore`]: the three of one service, opened once and shared by all its instances in a process;
//! - [`write_status`], [`store_status`]: what callers see of a store that failed.
//!
//! # How SQLite is compiled
//!
//! Flags for SQLite's C do not travel with a dependency. A package of your own with the feature `sqlite` works without them,
//! and commits faster with these lines in its `.cargo/config.toml`, which Meshwork's own build has:
//!
//! ```toml
//! [env]
//! LIBSQLITE3_FLAGS = "-DHAVE_FDATASYNC=1 -DSQLITE_DEFAULT_MEMSTATUS=0 -USQLITE_ENABLE_MEMORY_MANAGEMENT"
//! ```

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("an engine is needed: the feature `sqlite`, or `postgres`, or both");

pub mod store;

pub mod outbox;

pub mod writer;

pub mod consumer;

mod event_store;

mod status;

pub use event_store::{EventStore, OpenError};
pub use status::{store_status, write_status};
