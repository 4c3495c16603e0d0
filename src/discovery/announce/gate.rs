//! Where an instance of a list of registries may register: at each registry with its own store, and only once at each store.
//!
//! Registries of one epoch are one store behind several addresses. To register at a second of them would fence the lease that
//! the first has given, because it is the same instance of the same store.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::discovery::RegistryState;

/// What the announcing task of one registry asks before it registers. Those of one instance share what they hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    index: usize,
    /// The states of the registries. `None`: there is only one, which needs no gate.
    states: Option<watch::Receiver<Vec<RegistryState>>>,
    /// Epoch => through which registry the instance is in that store.
    holders: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Gate {
    /// Gates to registries in these `states`.
    pub(crate) fn to_all(registries: usize, states: &watch::Receiver<Vec<RegistryState>>) -> Vec<Self> {
        let holders = Arc::default();
        let gate =
            |index| Self { index, states: (registries > 1).then(|| states.clone()), holders: Arc::clone(&holders) };
        (0..registries).map(gate).collect()
    }

    /// Waits until it is known that the registry is a store that the instance is not in through another. From then on it is
    /// in that store through this registry: the registration that follows may take the lease away from another's task, which
    /// may hear of that before this one has its answer. Cancel-safe.
    pub(super) async fn open(&mut self) {
        let (index, Some(states)) = (self.index, &mut self.states) else { return };
        let is_there = |states: &Vec<RegistryState>| matches!(states.get(index), Some(RegistryState::There(_)));
        if states.wait_for(is_there).await.is_err() {
            // Discovery has ended.
            std::future::pending::<()>().await;
        }
        let there = match states.borrow().get(index) {
            Some(RegistryState::There(epoch)) => epoch.to_string(),
            // Away again: the registration will fail.
            _ => return,
        };
        self.hold(&there);
    }

    /// The instance is in the store of this epoch through this registry, or about to be.
    pub(super) fn hold(&self, epoch: &str) {
        self.holders.lock().insert(epoch.to_owned(), self.index);
    }

    /// Whether it is this instance itself that has taken a lease away from this registry's task: through another registry.
    pub(super) fn was_taken_by_ourselves(&self, epoch: &str) -> bool {
        let holders = self.holders.lock();
        holders.get(epoch).is_some_and(|holder| *holder != self.index)
    }
}
