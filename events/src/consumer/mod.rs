//! The consumer reads the logs of other services: a [`Subscription`] turns their events into inputs of the
//! [writer](crate::writer) and moves its cursor in the same transaction.
//!
//! We say "at least once, with effects once": delivery repeats after a failure, the cursor's compare-and-set does not.

mod claims;
mod consumer_group;
mod decode;
mod failing;
mod failure;
mod group;
mod operations;
mod past;
mod progress;
mod reader;
mod reconcile;
mod report;
mod source;
mod stop;
mod subscription;
mod unread;

pub use decode::{decode_event, event_id};
pub use operations::Operations;
pub use past::{NotThePast, Past};
pub use progress::{EventName, Progress, Snapshot, Stuck, SubscriptionState};
pub use reconcile::{Fork, Lost, Undo, Undone, first_id};
pub use report::MAX_UNREAD_AGE;
pub use source::{MalformedEvent, Source};
pub use subscription::Subscription;

pub(crate) use consumer_group::ConsumerGroups;
pub(crate) use group::cursor_name;

#[cfg(test)]
mod tests;
