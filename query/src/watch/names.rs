//! The names of customers whose orders are being watched.
//!
//! Orders come from commits, which know only their customer's id. A name never changes once it is known, so it is kept;
//! one that is not known yet is asked for again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use meshwork_events::store::{Store, StoreError};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::store;

/// Names that are kept, at most some 3 MiB with names of 200 characters. Beyond, all are forgotten and asked for again.
const MAX_NAMES: usize = 10_000;

#[derive(Default)]
pub(super) struct Names {
    known: Mutex<HashMap<Uuid, Arc<str>>>,
}

impl Names {
    /// The names of those customers that were seen.
    pub(super) async fn of(
        &self,
        store: &dyn Store,
        customer_ids: impl Iterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, Arc<str>>, StoreError> {
        let mut names = HashMap::new();
        let mut unknown = HashSet::new();
        {
            let known = self.known.lock();
            for id in customer_ids {
                match known.get(&id) {
                    Some(name) => drop(names.insert(id, name.clone())),
                    None => drop(unknown.insert(id)),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(names);
        }
        let found = store::customer_names(store, unknown).await?;
        let mut known = self.known.lock();
        if known.len() + found.len() > MAX_NAMES {
            known.clear();
        }
        for (id, name) in found {
            let name: Arc<str> = name.into();
            known.insert(id, name.clone());
            names.insert(id, name);
        }
        Ok(names)
    }
}
