//! The event stream between services: an append-only outbox, read in order from any position.
//!
//! Producer side: [`Outbox`] (the log), [`Feed`] (the rpc that serves it). Consumer side: [`Subscription`], which turns
//! events into inputs of the [write side](crate::write) and moves its cursor in the same transaction.
//!
//! We say "at least once, with effects once": delivery repeats after a failure, the cursor's compare-and-set does not.

mod cursor;
mod feed;
mod membership;
mod outbox;
mod position;
mod progress;
mod reader;
mod row;
mod schema;
mod session;
mod subscription;
mod tail;

pub use feed::Feed;
pub use outbox::{Outbox, OutboxError};
pub use position::{PARTITIONS, Position, PositionToken, partition_of};
pub use progress::{Progress, Snapshot, SubscriptionState};
pub use subscription::{MalformedEvent, Source, Subscription};

pub(crate) use cursor::{CursorMove, Cursors};
pub(crate) use outbox::append;

#[cfg(test)]
mod tests;
