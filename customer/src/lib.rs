//! Meshwork's customer service: customers, and the credit that their orders reserve.
//!
//! A command or a consumed event ([`domain::Input`]) goes through the writer, which asks the rules in [`domain`] and keeps
//! rows and events in one transaction.

mod consume;
mod decider;
pub mod domain;
mod service;
mod store;

pub use decider::Customers;

use meshwork_shop::{OpenError, WriteSide};
/// The service's name in the mesh.
pub const SERVICE: &str = "customer";

/// The durable half of the service: opened once, shared by all its instances in a process.
pub type Store = WriteSide<Customers>;

/// Opens the database of `url`; it is made if it is missing.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    WriteSide::open(url, SERVICE, store::MIGRATIONS, Customers).await
}
