//! The durable half of the service.

use meshwork_events::{EventStore, OpenError};

use crate::{
    View,
    consume::{self, ORDER_SERVICE},
    store,
};

/// The service's name in the mesh.
pub const SERVICE: &str = "query";

/// The durable half of the service: the view, and how far it has come.
pub type Store = EventStore<View>;

/// Opens the view in the database of `url`; it is made if it is missing. By default every instance has its own view,
/// so reads scale by adding instances; `?synchronous=normal` is enough for it. A PostgreSQL view may be shared by several
/// processes: they divide the folding, and all show the same.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    let store = EventStore::open(url, SERVICE, store::MIGRATIONS, View::default()).await?;
    let database = store.database();
    if database.notifier().is_some() {
        database.migrate("query_shared", store::SHARED_MIGRATIONS).await?;
        let group = consume::orders(store.outbox().store_id()).group;
        store.decider().hub().share(store.outbox().folded(ORDER_SERVICE, &group).await?);
    }
    Ok(store)
}
