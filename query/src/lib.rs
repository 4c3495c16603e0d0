//! Meshwork's query service: orders and customers as one view, folded from the event streams of both services.
//!
//! Modules are listed in the order in which an event, and then a query, passes through them.

mod consume;
mod domain;
mod store;
mod view;

mod watch;

mod position;

mod service;

mod message;

#[cfg(test)]
mod fixture;

use meshwork_shop::{OpenError, WriteSide};

pub use view::View;

/// The service's name in the mesh.
pub const SERVICE: &str = "query";

/// The durable half of the service: the view, and how far it has come.
pub type Store = WriteSide<View>;

/// Opens the view in the database of `url`; it is made if it is missing. By default every instance has a view of its own,
/// so reads scale by adding instances. It can be folded again from the events at any time, so `?synchronous=normal` is
/// safe.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    WriteSide::open(url, SERVICE, store::MIGRATIONS, View::default()).await
}
