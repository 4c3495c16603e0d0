//! The event stream between services: an append-only outbox, read in order from any position.
//!
//! Producer side: [`Outbox`] (the log), [`Feed`] (the rpc that serves it). Consumer side: [`Subscription`], which turns
//! events into inputs of the [write side](crate::write) and moves its cursor in the same transaction.
//!
//! We say "at least once, with effects once": delivery repeats after a failure, the cursor's compare-and-set does not.

mod claims;
mod cursor;
mod failure;
mod feed;
mod group;
mod membership;
mod operations;
mod outbox;
mod owner;
mod past;
mod position;
mod progress;
mod reader;
mod reconcile;
mod report;
mod row;
mod schema;
mod session;
mod stop;
mod subscription;
mod tail;
mod unread;

pub use feed::Feed;
pub use operations::Operations;
pub use outbox::{Outbox, OutboxError};
pub use past::{NotThePast, Past};
pub use position::{LogPoint, PARTITIONS, Position, PositionToken, partition_of};
pub use progress::{EventName, Progress, Snapshot, Stuck, SubscriptionState};
pub use reconcile::{Fork, Lost, Undo, Undone, first_id};
pub use report::MAX_UNREAD_AGE;
pub use subscription::{MalformedEvent, Source, Subscription};

pub(crate) use cursor::{CursorMove, CursorName, Cursors};

#[cfg(test)]
mod tests;
