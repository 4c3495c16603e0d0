//! The batch writer: every durable change of a service, command or consumed event, goes through one loop.
//!
//! A service supplies a [`Decider`]; the loop loads the rows that a batch of inputs touches, decides each input in memory
//! and in order, and writes what changed and what happened in one transaction.

mod batch;
pub(crate) mod cursor;
mod decider;
mod job;
mod run;

pub use decider::{Decider, Outcome, Rows};
pub use job::{Applied, WriteError};
pub use run::Writer;

pub(crate) use cursor::{CursorMove, CursorName};
pub(crate) use job::Traced;

#[cfg(test)]
mod tests;
