//! What discovery knows of a service.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use crate::{authorization::Knowledge, contract::meshwork::registry::v1::Instance, policy::Policy};

/// The instances of a service, by id. Cheap to clone.
pub type Endpoints = Arc<BTreeMap<Arc<str>, Arc<Instance>>>;

/// An instance before and after a change, with its id.
pub(crate) type InstanceChange<'a> = (&'a Arc<str>, Option<&'a Arc<Instance>>, Option<&'a Arc<Instance>>);

/// What differs between two sets. Both are walked once, and what they share is recognised by its pointer: most of a large set is what
/// it was before.
pub(crate) fn changes<'a>(before: &'a Endpoints, now: &'a Endpoints) -> impl Iterator<Item = InstanceChange<'a>> {
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (before.peek(), now.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((_, one)), Some((_, other))) if Arc::ptr_eq(one, other) => {
                    before.next();
                    now.next();
                    continue;
                }
                (Some((one, _)), Some((other, _))) => one.cmp(other),
            };
            let left = before.next_if(|_| order.is_le());
            let right = now.next_if(|_| order.is_ge());
            let id = left.or(right).map(|(id, _)| id)?;
            return Some((id, left.map(|(_, instance)| instance), right.map(|(_, instance)| instance)));
        }
    })
}

/// The instances of one service, its policy and its authorization rules, as known from the registries of a mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSet {
    /// The service's name.
    pub service: Arc<str>,
    /// The revision of each registry, by its life (epoch), up to which all changes are in. Empty: no registry answered
    /// yet, and the endpoints, if there are any, are those of an earlier run.
    pub revisions: BTreeMap<Arc<str>, u64>,
    /// Whether an instance of the service ever registered: known without endpoints is empty, not unknown.
    pub known: bool,
    /// All instances, whatever their status.
    pub endpoints: Endpoints,
    /// How clients treat them. The default while none was set or is known yet.
    pub policy: Arc<Policy>,
    /// What is known of the rules about who may call it.
    pub authorization: Knowledge,
}

impl EndpointSet {
    /// Nothing is known yet.
    pub(crate) fn unknown(service: &str) -> Self {
        Self {
            service: service.into(),
            revisions: BTreeMap::new(),
            known: false,
            endpoints: Endpoints::default(),
            policy: Arc::default(),
            authorization: Knowledge::Unknown,
        }
    }

    /// Whether both have the same endpoints, policy and rules; cheap, because unchanged parts are shared.
    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        let same_endpoints = changes(&self.endpoints, &other.endpoints).all(|(_, one, other)| one == other);
        same_endpoints && self.policy == other.policy && self.authorization == other.authorization
    }

    /// Whether the registry's revision `revision` of its life `epoch` is in.
    pub fn has_seen(&self, epoch: &str, revision: u64) -> bool {
        self.revisions.get(epoch).is_some_and(|seen| *seen >= revision)
    }

    /// Whether a registry has spoken.
    pub fn is_heard(&self) -> bool {
        !self.revisions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_each_instance_that_came_went_or_is_another_one() {
        let instances = ["a", "b", "c", "d", "e", "f"].map(|id| (Arc::<str>::from(id), Arc::new(Instance::default())));
        let [a, b, c, d, e, f] = instances;
        let other_c = (c.0.clone(), Arc::new(Instance::default()));
        let before: Endpoints = Arc::new([a, b.clone(), c, e.clone()].into());
        let now: Endpoints = Arc::new([b, other_c, d, e, f].into());
        let told: Vec<_> =
            changes(&before, &now).map(|(id, before, now)| (&**id, before.is_some(), now.is_some())).collect();
        assert_eq!(told, [("a", true, false), ("c", true, true), ("d", false, true), ("f", false, true)]);
        assert_eq!(changes(&before, &before).count(), 0);
        assert_eq!(changes(&Endpoints::default(), &now).count(), 5);
    }
}
