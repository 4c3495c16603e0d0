//! Which store a service serves. Pure, as the table that it belongs to.
//!
//! Two stores of one service split its data: clients see either, and readers of the log lose their place. So an instance of another
//! store than the one served is refused as soon as that is certain: not in the grace period, when it is unknown which came first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use meshwork::{
    contract::meshwork::registry::v1::{Instance, InstanceStatus, RefusedInstance},
    discovery::stores::{are_other, shared_store},
};

use super::InstanceKey;

/// How long an instance that was refused is remembered: three of its attempts.
const REMEMBERED: Duration = Duration::from_secs(15);
/// How many are, at most.
const MAX_REMEMBERED: usize = 256;

/// Another store is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service} is served from {}", self.difference())]
pub struct StoreConflict {
    /// The service.
    pub service: String,
    /// The store that it is served from; empty: not known yet.
    pub served: String,
    /// By which instance, or by an operator's command.
    pub by: String,
    /// The store of the refused instance.
    pub refused: String,
    /// It was refused before, and tries again.
    pub again: bool,
}

impl StoreConflict {
    fn difference(&self) -> String {
        let Self { service, served, by, refused, .. } = self;
        let remedy = format!("give it the same database, or `meshwork store adopt {service} {refused}`");
        match served.as_str() {
            "" => format!("another store {by}, and this instance has store {refused}: {remedy}"),
            served if served == refused => {
                format!(
                    "store {served} {by}, and this instance has a copy of it: give it the same database, or stop the others first"
                )
            }
            served => format!("store {served} {by}, and this instance has store {refused}: {remedy}"),
        }
    }
}

/// The stores that were adopted, by service.
#[derive(Debug, Default)]
pub(super) struct Adopted(BTreeMap<Arc<str>, Adoption>);

#[derive(Debug)]
struct Adoption {
    store_id: String,
    /// An instance with this store has been there: from then on no other store is the service's, even if the instance leaves.
    in_place: bool,
}

impl Adopted {
    pub(super) fn adopt(&mut self, service: Arc<str>, store_id: String) {
        if self.0.get(&service).is_none_or(|adoption| adoption.store_id != store_id) {
            self.0.insert(service, Adoption { store_id, in_place: false });
        }
    }

    /// Whether an instance has the store that was adopted for its service.
    pub(super) fn is_of(&self, instance: &Instance) -> bool {
        self.0.get(instance.service.as_str()).is_some_and(|adoption| adoption.store_id == instance.store_id)
    }

    /// An instance has registered. Returns whether its store is the one that was adopted for its service.
    pub(super) fn arrived(&mut self, instance: &Instance) -> bool {
        let adoption = self.0.get_mut(instance.service.as_str());
        adoption.filter(|adoption| adoption.store_id == instance.store_id).map(|of| of.in_place = true).is_some()
    }
}

/// The instances that were refused lately.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<InstanceKey, (Duration, RefusedInstance)>);

impl Refused {
    /// An instance is refused at `now`. Returns why, with whether it was before.
    pub(super) fn note(&mut self, now: Duration, instance: &Instance, conflict: StoreConflict) -> StoreConflict {
        let refused = RefusedInstance {
            instance_id: instance.instance_id.clone(),
            address: instance.address.clone(),
            store_id: instance.store_id.clone(),
            served_store_id: conflict.served.clone(),
        };
        let again = self.0.insert(key(instance), (now, refused)).is_some();
        if self.0.len() > MAX_REMEMBERED {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        StoreConflict { again, ..conflict }
    }

    /// An instance is admitted.
    pub(super) fn forget(&mut self, instance: &Instance) {
        if !self.0.is_empty() {
            self.0.remove(&key(instance));
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|_, (at, _)| now.saturating_sub(*at) < REMEMBERED);
    }

    /// Those of a service.
    pub(super) fn of(&self, service: &str) -> Vec<RefusedInstance> {
        let of_service = self.0.iter().filter(|((name, _), _)| **name == *service);
        of_service.map(|(_, (_, refused))| refused.clone()).collect()
    }

    /// The services of which some were refused.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys().map(|(service, _)| service)
    }
}

fn key(instance: &Instance) -> InstanceKey {
    (instance.service.as_str().into(), instance.instance_id.as_str().into())
}

/// Why an instance that was refused is refused again by a registry that has just started.
pub(super) fn not_known_yet(instance: &Instance) -> StoreConflict {
    StoreConflict {
        service: instance.service.clone(),
        served: String::new(),
        by: "as far as was known before the registry started, which waits for its instances to come back".to_owned(),
        refused: instance.store_id.clone(),
        again: false,
    }
}

/// Whether two instances of a service cannot both be right.
pub(super) fn differ(one: &Instance, other: &Instance) -> bool {
    shared_store(one).zip(shared_store(other)).is_some_and(|(one, other)| are_other(one, other))
}

/// Whether an instance may join those of its service.
pub(super) fn check<'a>(
    newcomer: &Instance,
    others: impl Iterator<Item = &'a Instance>,
    adopted: &Adopted,
) -> Result<(), StoreConflict> {
    let conflict = |served: &str, by: String| StoreConflict {
        service: newcomer.service.clone(),
        served: served.to_owned(),
        by,
        refused: newcomer.store_id.clone(),
        again: false,
    };
    let adopted = adopted.0.get(newcomer.service.as_str());
    let is_adopted = adopted.is_some_and(|adoption| adoption.store_id == newcomer.store_id);
    match adopted {
        Some(Adoption { store_id, in_place: true }) if shared_store(newcomer).is_some() && !is_adopted => {
            return Err(conflict(store_id, "as declared with `meshwork store adopt`".to_owned()));
        }
        _ => {}
    }
    let conflicts = |other: &&Instance| {
        other.status() == InstanceStatus::Serving
            && other.instance_id != newcomer.instance_id
            && differ(newcomer, other)
            // A word on ids, of which a copy has the same.
            && !(is_adopted && other.store_id != newcomer.store_id)
    };
    match { others }.find(conflicts) {
        None => Ok(()),
        Some(other) => Err(conflict(&other.store_id, format!("by instance {}", other.instance_id))),
    }
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::StoreScope;

    use super::*;

    fn instance(id: &str, store_id: &str, scope: StoreScope, status: InstanceStatus) -> Instance {
        Instance {
            service: "order".into(),
            instance_id: id.into(),
            store_id: store_id.into(),
            store_scope: scope.into(),
            status: status.into(),
            ..Instance::default()
        }
    }

    #[test]
    fn only_another_store_of_the_whole_service_that_is_served_keeps_an_instance_out() {
        use InstanceStatus::{Draining, NotServing, Serving};
        use StoreScope::{Instance as Own, Service, Unspecified};
        let newcomer = instance("new", "b", Service, Serving);
        for (other, conflicts) in [
            (instance("old", "a", Service, Serving), true),
            (instance("old", "a", Unspecified, Serving), true),
            (instance("old", "b", Service, Serving), false),
            (instance("old", "", Service, Serving), false),
            (instance("old", "a", Own, Serving), false),
            (instance("old", "a", Service, Draining), false),
            (instance("old", "a", Service, NotServing), false),
            (instance("new", "a", Service, Serving), false),
        ] {
            let mut adopted = Adopted::default();
            let checked = check(&newcomer, std::iter::once(&other), &adopted);
            assert_eq!(checked.is_err(), conflicts, "{other:?}");
            adopted.adopt("order".into(), "b".into());
            assert!(check(&newcomer, std::iter::once(&other), &adopted).is_ok());
        }
        let mut adopted = Adopted::default();
        adopted.adopt("order".into(), "b".into());
        let old = instance("old", "a", Service, NotServing);
        assert!(check(&old, std::iter::empty(), &adopted).is_ok(), "it is not there yet");
        assert!(adopted.arrived(&newcomer));
        assert!(check(&old, std::iter::empty(), &adopted).is_err(), "whether it serves at the moment or not");
        adopted.adopt("order".into(), "b".into());
        assert!(check(&old, std::iter::empty(), &adopted).is_err(), "adopted twice is adopted");
        let view = instance("new", "b", Own, Serving);
        let other = instance("old", "a", Own, Serving);
        assert!(check(&view, std::iter::once(&other), &Adopted::default()).is_ok());
    }
}
