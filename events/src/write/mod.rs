//! The batch writer: every durable change of a service, command or consumed event, goes through one loop.
//!
//! A service supplies a [`Decider`]; the loop loads the rows that a batch of inputs touches, decides each input in memory
//! and in order, and writes what changed and what happened in one transaction.

mod batch;
mod decider;
mod writer;

pub use decider::{Decider, NewEvent, Outcome, Rows};
pub use writer::{Applied, WriteError, Writer};

pub(crate) use writer::Caused;

#[cfg(test)]
mod tests;
