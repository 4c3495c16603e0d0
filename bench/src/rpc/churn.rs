//! How often the set of a service's endpoints changes.

use std::{cell::Cell, convert::Infallible};

use meshwork::discovery::{EndpointSet, Endpoints};
use tokio::sync::watch;

/// Counts the endpoints that join and leave, for as long as it is polled.
pub(super) async fn count(mut endpoints: watch::Receiver<EndpointSet>, changes: &Cell<usize>) -> Infallible {
    let mut known = endpoints.borrow_and_update().endpoints.clone();
    while endpoints.changed().await.is_ok() {
        let now = endpoints.borrow_and_update().endpoints.clone();
        changes.set(changes.get() + between(&known, &now));
        known = now;
    }
    std::future::pending().await
}

/// Endpoints that are in one of the sets alone. Both are walked once: what is counted here takes CPU from what is measured.
fn between(these: &Endpoints, those: &Endpoints) -> usize {
    let (mut these, mut those) = (these.keys().peekable(), those.keys().peekable());
    let mut alone = 0;
    while let (Some(one), Some(other)) = (these.peek(), those.peek()) {
        let order = one.cmp(other);
        alone += usize::from(order.is_ne());
        these.next_if(|_| order.is_le());
        those.next_if(|_| order.is_ge());
    }
    alone + these.count() + those.count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meshwork::contract::meshwork::registry::v1::{Instance, InstanceStatus};

    use super::*;

    fn set(ids: &[&str], status: InstanceStatus) -> Endpoints {
        let instance = || Arc::new(Instance { status: status.into(), ..Instance::default() });
        Arc::new(ids.iter().map(|id| ((*id).into(), instance())).collect())
    }

    #[test]
    fn a_restart_is_two_changes_and_a_status_is_none() {
        let set = |ids: &[&str]| set(ids, InstanceStatus::Serving);
        assert_eq!(between(&set(&["a", "b"]), &set(&["b", "c"])), 2);
        assert_eq!(between(&set(&["a"]), &set(&[])), 1);
        let draining = self::set(&["a", "b"], InstanceStatus::Draining);
        assert_eq!(between(&set(&["a", "b"]), &draining), 0);
    }
}
