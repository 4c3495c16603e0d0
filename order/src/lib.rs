//! Meshwork's order service: orders, and the saga that approves or rejects them.
//!
//! A command or a consumed event ([`domain::Input`]) goes through the writer, which asks the rules in [`domain`] and keeps
//! rows and events in one transaction.

mod consume;
mod decider;
pub mod domain;
mod service;
mod store;
mod sweeper;
mod watchers;

pub use decider::Orders;

use meshwork_shop::{OpenError, WriteSide};
use std::time::Duration;
/// The service's name in the mesh.
pub const SERVICE: &str = "order";
/// How long an order waits for credit, unless said otherwise.
pub const SAGA_DEADLINE: Duration = Duration::from_secs(30);

/// The durable half of the service: opened once, shared by all its instances in a process.
pub type Store = WriteSide<Orders>;

/// Opens the database of `url`; it is made if it is missing.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    WriteSide::open(url, SERVICE, store::MIGRATIONS, Orders::default()).await
}
