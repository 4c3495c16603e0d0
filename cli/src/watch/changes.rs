//! What a watch response changes about what was shown before: pure, so that a reconnect shows only what is new.

use std::collections::{BTreeMap, BTreeSet};

use meshwork::contract::meshwork::registry::v1::{Instance, Snapshot, WatchResponse, watch_response::Event};

/// One change, with the instance as it is now, or was last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It was not there before.
    Joined(Instance),
    /// Something that is shown of it is different.
    Changed(Instance),
    /// It is not there any more.
    Left(Instance),
}

/// The instances that were shown, by service and instance id.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(String, String), Instance>);

impl Known {
    /// Takes a response in, and returns what it changes, by service and instance id.
    pub(super) fn apply(&mut self, response: WatchResponse) -> Vec<Change> {
        match response.event {
            Some(Event::Snapshot(snapshot)) => self.replace(snapshot),
            Some(Event::Change(change)) => {
                let removed = change.removed.into_iter().map(|gone| (gone.service, gone.instance_id));
                let mut changes: Vec<_> = removed.filter_map(|key| self.0.remove(&key)).map(Change::Left).collect();
                changes.extend(change.updated.into_iter().filter_map(|instance| self.update(instance)));
                changes
            }
            Some(Event::Progress(_)) | None => Vec::new(),
        }
    }

    /// A provisional snapshot only adds: its registry has just started, and not every instance has come back yet.
    fn replace(&mut self, snapshot: Snapshot) -> Vec<Change> {
        let there: Vec<Instance> = snapshot.services.into_iter().flat_map(|service| service.instances).collect();
        let mut changes = Vec::new();
        if !snapshot.provisional {
            let keys: BTreeSet<_> = there.iter().map(key).collect();
            let gone: Vec<_> = self.0.keys().filter(|key| !keys.contains(key)).cloned().collect();
            changes.extend(gone.into_iter().filter_map(|key| self.0.remove(&key)).map(Change::Left));
        }
        changes.extend(there.into_iter().filter_map(|instance| self.update(instance)));
        changes
    }

    fn update(&mut self, instance: Instance) -> Option<Change> {
        match self.0.insert(key(&instance), instance.clone()) {
            None => Some(Change::Joined(instance)),
            Some(before) if looks_like(&before, &instance) => None,
            Some(_) => Some(Change::Changed(instance)),
        }
    }
}

fn key(instance: &Instance) -> (String, String) {
    (instance.service.clone(), instance.instance_id.clone())
}

/// Whether both are shown alike. A lease that is new because the registry is new does not show.
fn looks_like(a: &Instance, b: &Instance) -> bool {
    let shown = |i: &Instance| (i.address.clone(), i.status, i.zone.clone(), i.version.clone());
    shown(a) == shown(b)
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::{self as registry, InstanceRef, InstanceStatus, ServiceInstances};

    use prost_types::Timestamp;

    use super::*;

    fn instance(instance_id: &str, status: InstanceStatus) -> Instance {
        Instance {
            service: "order".into(),
            instance_id: instance_id.into(),
            status: status.into(),
            ..Instance::default()
        }
    }

    fn serving(instance_id: &str) -> Instance {
        instance(instance_id, InstanceStatus::Serving)
    }

    fn snapshot(instances: Vec<Instance>, provisional: bool) -> WatchResponse {
        let services = vec![ServiceInstances {
            service: "order".into(),
            known: true,
            instances,
            policy: None,
            authorization: None,
        }];
        response(Event::Snapshot(Snapshot { services, provisional }))
    }

    fn change(updated: Vec<Instance>, removed: &[&str]) -> WatchResponse {
        let removed = removed.iter().map(|id| InstanceRef { service: "order".into(), instance_id: (*id).into() });
        response(Event::Change(registry::Change { updated, removed: removed.collect(), ..Default::default() }))
    }

    fn response(event: Event) -> WatchResponse {
        WatchResponse { epoch: "e".into(), revision: 1, event: Some(event) }
    }

    #[test]
    fn changes_are_shown_once_each() {
        let mut known = Known::default();
        assert_eq!(known.apply(snapshot(vec![serving("a")], false)), [Change::Joined(serving("a"))]);
        assert_eq!(known.apply(change(vec![serving("a")], &[])), [], "nothing that is shown has changed");
        let draining = instance("a", InstanceStatus::Draining);
        assert_eq!(known.apply(change(vec![draining.clone()], &[])), [Change::Changed(draining.clone())]);
        assert_eq!(known.apply(change(vec![], &["a", "b"])), [Change::Left(draining)]);
    }

    #[test]
    fn a_snapshot_after_a_reconnect_shows_only_what_differs() {
        let mut known = Known::default();
        known.apply(snapshot(vec![serving("a"), serving("b")], false));
        let again = Instance { create_time: Some(Timestamp { seconds: 1, nanos: 0 }), ..serving("b") };
        assert_eq!(
            known.apply(snapshot(vec![again, serving("c")], false)),
            [Change::Left(serving("a")), Change::Joined(serving("c"))]
        );
    }

    #[test]
    fn no_instance_leaves_on_the_word_of_a_registry_that_has_just_started() {
        let mut known = Known::default();
        known.apply(snapshot(vec![serving("a")], false));
        assert_eq!(known.apply(snapshot(vec![serving("b")], true)), [Change::Joined(serving("b"))]);
        assert_eq!(known.apply(snapshot(vec![serving("b")], false)), [Change::Left(serving("a"))]);
    }
}
