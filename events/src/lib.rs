//! The durable half of a Meshwork service: the database, the log of events in it, and the loop that writes both.
//!
//! - [`store`]: one database from one URL, SQLite or PostgreSQL;
//! - [`write`](mod@write): every durable change, decided by a pure [`Decider`](write::Decider) and committed in batches;
//! - [`event`]: what was committed, as a log that others read in order, and the reading of theirs.

pub mod store;

pub mod write;

pub mod event;
