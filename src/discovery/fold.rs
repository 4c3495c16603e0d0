//! What one registry's watch has reported so far: a pure fold of its responses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost_types::Timestamp;

use crate::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{
        self as contract, Change, Instance, ResumePoint, Snapshot, WatchResponse, watch_response::Event,
    },
    endpoint_set::Endpoints,
    policy::Policy,
};

/// The state of the watched services.
#[derive(Debug, Default)]
pub(super) struct View {
    epoch: Arc<str>,
    revision: u64,
    services: BTreeMap<Arc<str>, Service>,
    /// Whether everything that the registry has sent up to the revision is still in here.
    complete: bool,
}

/// What is known of a service.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) known: bool,
    pub(super) endpoints: Endpoints,
    /// Those that the registry has sent before its restart and not since.
    inherited: BTreeSet<Arc<str>>,
    /// Those that have left since, by another registry's word.
    doubted: BTreeSet<Arc<str>>,
    pub(super) policy: Arc<Policy>,
    /// When it was set. `None`: it was not.
    pub(super) policy_time: Option<Timestamp>,
    pub(super) authorization: Knowledge,
    /// Whether the registry has sent it completely since its start.
    pub(super) settled: bool,
}

/// What an earlier run knew about a service.
#[derive(Debug, PartialEq)]
pub(super) struct Earlier {
    pub(super) endpoints: Endpoints,
    pub(super) policy: Policy,
    pub(super) authorization: Knowledge,
}

impl View {
    /// Takes in a response. A revision that goes backwards within an epoch is ignored.
    pub(super) fn apply(&mut self, response: WatchResponse) {
        if *self.epoch == *response.epoch && response.revision < self.revision {
            return;
        }
        if *self.epoch != *response.epoch {
            self.epoch = response.epoch.into();
            self.services.values_mut().for_each(Service::inherit);
        }
        self.revision = response.revision;
        match response.event {
            Some(Event::Snapshot(snapshot)) => {
                self.complete = true;
                self.replace(snapshot);
            }
            Some(Event::Change(change)) => self.change(change),
            Some(Event::Progress(_)) | None => {}
        }
    }

    /// Takes in what an earlier run knew about a service that this one has not heard of yet.
    pub(super) fn recall(&mut self, service: &str, earlier: Earlier) {
        let Earlier { endpoints, policy, authorization } = earlier;
        let policy = Arc::new(policy);
        let recalled = Service { known: true, endpoints, policy, authorization, ..Service::default() };
        self.services.entry(service.into()).or_insert(recalled);
    }

    /// Another registry says that an instance has left. What is only remembered of it is forgotten: unless the registry
    /// has reported it in this life, or `anyway`. Otherwise it is forgotten if the registry goes [away](Self::away)
    /// without reporting it again.
    pub(super) fn forget(&mut self, service: &str, instance_id: &str, anyway: bool) {
        let Some(service) = self.services.get_mut(service) else { return };
        if !service.endpoints.contains_key(instance_id) {
            return;
        }
        if anyway || service.inherited.contains(instance_id) {
            Arc::make_mut(&mut service.endpoints).remove(instance_id);
            self.complete = false;
        } else {
            service.doubted.insert(instance_id.into());
        }
    }

    /// The registry's watch has ended: from now on its last word is only remembered.
    pub(super) fn away(&mut self) {
        for service in self.services.values_mut() {
            for instance_id in std::mem::take(&mut service.doubted) {
                if service.endpoints.contains_key(&*instance_id) {
                    Arc::make_mut(&mut service.endpoints).remove(&*instance_id);
                    self.complete = false;
                }
            }
        }
    }

    /// Forgets a service.
    pub(super) fn forget_service(&mut self, service: &str) {
        self.services.remove(service);
    }

    /// Forgets the services that are no longer watched.
    pub(super) fn retain(&mut self, services: &[Arc<str>]) {
        let before = self.services.len();
        self.services.retain(|service, _| services.contains(service));
        self.complete &= self.services.len() == before;
    }

    /// Whether anything is known of a service.
    pub(super) fn has(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// Where to go on after a reconnect; nowhere before the first snapshot, or if something was forgotten: it may be there again, or
    /// be asked for again, and only a snapshot would tell.
    pub(super) fn resume_point(&self) -> Option<ResumePoint> {
        self.complete.then(|| ResumePoint { epoch: self.epoch.to_string(), revision: self.revision })
    }

    /// What is known of a service, if anything.
    pub(super) fn service(&self, service: &str) -> Option<&Service> {
        self.services.get(service)
    }

    /// The life and revision that all is as of; `None` before the first response.
    pub(super) fn at(&self) -> Option<(&Arc<str>, u64)> {
        (!self.epoch.is_empty()).then_some((&self.epoch, self.revision))
    }

    fn replace(&mut self, snapshot: Snapshot) {
        for told in snapshot.services {
            let name: Arc<str> = told.service.into();
            let service = self.services.entry(name.clone()).or_default();
            if snapshot.provisional {
                service.known |= told.known;
            } else {
                service.known = told.known;
                service.settled = true;
                service.keep_only(&told.instances);
            }
            match told.policy {
                Some(policy) => service.take_on(&policy),
                // A registry that kept its policies in memory has lost them: an operator may be about to set them again, and
                // a canary must not get its full share until then.
                None if snapshot.provisional => {}
                None => service.take_on(&contract::Policy::default()),
            }
            service.learn(&name, told.authorization.as_ref());
            told.instances.into_iter().for_each(|instance| service.put(instance));
        }
    }

    fn change(&mut self, change: Change) {
        for instance in change.updated {
            let service = self.services.entry(instance.service.as_str().into()).or_default();
            service.known = true;
            service.put(instance);
        }
        for gone in change.removed {
            if let Some(service) = self.services.get_mut(gone.service.as_str())
                && service.endpoints.contains_key(&*gone.instance_id)
            {
                Arc::make_mut(&mut service.endpoints).remove(&*gone.instance_id);
                service.doubted.remove(&*gone.instance_id);
            }
        }
        for policy in change.policies {
            self.services.entry(policy.service.as_str().into()).or_default().take_on(&policy);
        }
        for policy in change.authorizations {
            self.services.entry(policy.service.as_str().into()).or_default().learn(&policy.service, Some(&policy));
        }
    }
}

impl Service {
    /// The registry has restarted, and has not sent anything since.
    fn inherit(&mut self) {
        self.inherited = self.endpoints.keys().cloned().collect();
        self.settled = false;
    }

    fn put(&mut self, instance: Instance) {
        self.inherited.remove(&*instance.instance_id);
        self.doubted.remove(&*instance.instance_id);
        if self.endpoints.get(&*instance.instance_id).is_none_or(|now| **now != instance) {
            Arc::make_mut(&mut self.endpoints).insert(instance.instance_id.as_str().into(), Arc::new(instance));
        }
    }

    /// Acts by a policy from now on; not by one that cannot be understood.
    fn take_on(&mut self, policy: &contract::Policy) {
        match Policy::try_from(policy) {
            Ok(new) => {
                self.policy_time = policy.update_time;
                if new != *self.policy {
                    self.policy = Arc::new(new);
                }
            }
            Err(violations) => {
                tracing::warn!(service = policy.service, %violations, "a policy was ignored; the previous one stays in effect");
            }
        }
    }

    /// Takes in what the registry says about the rules; `None`: it never had any, or has lost them. Neither ends rules: only a
    /// policy does that says that they were deleted.
    fn learn(&mut self, service: &str, told: Option<&contract::AuthorizationPolicy>) {
        match told.map_or(Ok(Knowledge::NEVER_SET), Knowledge::new) {
            Ok(heard) if self.authorization.learn(&heard) => {}
            Ok(heard) if self.authorization.rules().is_none() && heard.rules().is_none() => {}
            Ok(_) if self.authorization.rules().is_none() => tracing::warn!(
                service,
                "a registry has authorization rules again that were removed; they are not in effect here: set them again"
            ),
            Ok(_) => tracing::warn!(
                service,
                "a registry has lost authorization rules that were set; they stay in effect here: set them again"
            ),
            Err(violations) => {
                tracing::warn!(service, %violations, "authorization rules were ignored; those from before stay in effect");
            }
        }
    }

    fn keep_only(&mut self, instances: &[Instance]) {
        let kept: BTreeSet<_> = instances.iter().map(|instance| instance.instance_id.as_str()).collect();
        if self.endpoints.keys().any(|id| !kept.contains(&**id)) {
            Arc::make_mut(&mut self.endpoints).retain(|id, _| kept.contains(&**id));
            self.doubted.retain(|id| kept.contains(&**id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        contract::meshwork::registry::v1::{InstanceRef, Progress, ServiceInstances},
        server::tests::logged::Logged,
    };

    fn instance(id: &str) -> Instance {
        Instance { service: "order".into(), instance_id: id.into(), address: format!("{id}:1"), ..Instance::default() }
    }

    fn snapshot(epoch: &str, revision: u64, ids: &[&str], provisional: bool) -> WatchResponse {
        let instances = ids.iter().map(|id| instance(id)).collect::<Vec<_>>();
        let services = vec![ServiceInstances {
            service: "order".into(),
            known: !ids.is_empty(),
            instances,
            policy: None,
            authorization: None,
        }];
        event(epoch, revision, Event::Snapshot(Snapshot { services, provisional }))
    }

    fn change(revision: u64, updated: &[&str], removed: &[&str]) -> WatchResponse {
        let removed =
            removed.iter().map(|id| InstanceRef { service: "order".into(), instance_id: (*id).into() }).collect();
        event(
            "e",
            revision,
            Event::Change(Change {
                updated: updated.iter().map(|id| instance(id)).collect(),
                removed,
                ..Change::default()
            }),
        )
    }

    fn event(epoch: &str, revision: u64, event: Event) -> WatchResponse {
        WatchResponse { epoch: epoch.into(), revision, event: Some(event) }
    }

    fn view(responses: impl IntoIterator<Item = WatchResponse>) -> View {
        let mut view = View::default();
        responses.into_iter().for_each(|response| view.apply(response));
        view
    }

    fn set(view: &View) -> &Service {
        view.service("order").expect("told of")
    }

    fn revision(view: &View) -> u64 {
        view.at().expect("told of").1
    }

    fn ids(view: &View) -> Vec<String> {
        set(view).endpoints.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_snapshot_and_its_changes_make_the_set() {
        let view = view([snapshot("e", 3, &["a", "b"], false), change(5, &["c"], &["a"])]);
        assert_eq!(ids(&view), ["b", "c"]);
        assert_eq!(view.resume_point(), Some(ResumePoint { epoch: "e".into(), revision: 5 }));
        assert_eq!(view.at(), Some((&"e".into(), 5)));
    }

    #[test]
    fn a_provisional_snapshot_adds_and_removes_nothing_until_the_final_one() {
        let mut view = view([snapshot("e", 9, &["a", "b"], false), snapshot("f", 1, &["c"], true)]);
        assert_eq!(ids(&view), ["a", "b", "c"]);
        view.apply(snapshot("f", 1, &[], true));
        assert_eq!((ids(&view).len(), set(&view).known), (3, true));
        view.apply(snapshot("f", 2, &["b", "c"], false));
        assert_eq!(ids(&view), ["b", "c"]);
    }

    #[test]
    fn an_unchanged_snapshot_keeps_every_endpoint_as_it_is() {
        let mut view = view([snapshot("e", 3, &["a", "b"], false)]);
        let before = set(&view).endpoints.clone();
        view.apply(snapshot("f", 1, &["a", "b"], false));
        assert!(Arc::ptr_eq(&before, &set(&view).endpoints));
    }

    #[test]
    fn a_progress_mark_moves_only_the_revision() {
        let mut view = view([snapshot("e", 3, &["a"], false)]);
        let before = set(&view).endpoints.clone();
        view.apply(event("e", 7, Event::Progress(Progress {})));
        assert_eq!(revision(&view), 7);
        assert!(Arc::ptr_eq(&before, &set(&view).endpoints));
    }

    #[test]
    fn a_late_response_of_the_same_epoch_changes_nothing() {
        let view = view([snapshot("e", 5, &["a"], false), change(4, &["b"], &["a"])]);
        assert_eq!((ids(&view), revision(&view)), (vec!["a".to_owned()], 5));
    }

    #[test]
    fn a_known_service_without_instances_is_not_an_unknown_one() {
        let view = view([snapshot("e", 1, &["a"], false), change(2, &[], &["a"])]);
        assert!(set(&view).known && ids(&view).is_empty());
        let unknown = super::tests::view([snapshot("e", 1, &[], false)]);
        assert!(!set(&unknown).known);
    }

    fn timeout_of(seconds: i64) -> contract::Policy {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        contract::Policy { service: "order".into(), timeout, ..contract::Policy::default() }
    }

    fn new_policy(revision: u64, policy: contract::Policy) -> WatchResponse {
        event("e", revision, Event::Change(Change { policies: vec![policy], ..Change::default() }))
    }

    fn timeout(view: &View) -> Option<Duration> {
        set(view).policy.timeout
    }

    #[test]
    fn a_policy_is_followed_and_the_endpoints_stay() {
        let mut view = view([snapshot("e", 1, &["a"], false)]);
        let before = set(&view).endpoints.clone();
        assert_eq!(*set(&view).policy, Policy::default());
        view.apply(new_policy(2, timeout_of(2)));
        assert_eq!(timeout(&view), Some(Duration::from_secs(2)));
        assert!(Arc::ptr_eq(&before, &set(&view).endpoints));
        view.apply(new_policy(3, contract::Policy { service: "order".into(), ..contract::Policy::default() }));
        assert_eq!(*set(&view).policy, Policy::default(), "it was taken back");
    }

    #[test]
    fn a_provisional_snapshot_sets_a_policy_and_takes_none_back_until_the_final_one() {
        let services = vec![ServiceInstances {
            service: "order".into(),
            policy: Some(timeout_of(2)),
            ..ServiceInstances::default()
        }];
        let mut view = view([event("e", 1, Event::Snapshot(Snapshot { services, provisional: true }))]);
        assert_eq!(timeout(&view), Some(Duration::from_secs(2)));
        view.apply(snapshot("f", 1, &["a"], true));
        assert_eq!(timeout(&view), Some(Duration::from_secs(2)), "a registry without a file has started again");
        view.apply(snapshot("f", 2, &["a"], false));
        assert_eq!(timeout(&view), None);
    }

    #[test]
    fn a_policy_that_cannot_be_understood_leaves_the_one_before() {
        let view = view([snapshot("e", 1, &["a"], false), new_policy(2, timeout_of(2)), new_policy(3, timeout_of(-1))]);
        assert_eq!((timeout(&view), revision(&view)), (Some(Duration::from_secs(2)), 3));
    }

    fn authorization(update_time: i64, callers: &[&str]) -> contract::AuthorizationPolicy {
        let callers = callers.iter().map(ToString::to_string).collect();
        contract::AuthorizationPolicy {
            allow: vec![contract::AuthorizationRule { callers, methods: vec!["a.C/*".into()] }],
            ..deletion(update_time)
        }
    }

    fn deletion(update_time: i64) -> contract::AuthorizationPolicy {
        let update_time = Some(Timestamp { seconds: update_time, nanos: 0 });
        contract::AuthorizationPolicy { service: "order".into(), update_time, ..Default::default() }
    }

    fn new_rules(revision: u64, policy: contract::AuthorizationPolicy) -> WatchResponse {
        event("e", revision, Event::Change(Change { authorizations: vec![policy], ..Change::default() }))
    }

    /// When the rules in effect were set.
    fn rules_of(view: &View) -> Option<i64> {
        let rules = set(view).authorization.rules()?;
        rules.update_time().map(|time| time.seconds)
    }

    #[test]
    fn rules_are_known_with_the_first_snapshot_and_only_a_deletion_ends_them() {
        for provisional in [true, false] {
            let mut view = view([]);
            view.apply(snapshot("e", 1, &["a"], provisional));
            assert_eq!(set(&view).authorization, Knowledge::NEVER_SET, "the registry has said that there are none");
            view.apply(new_rules(2, authorization(7, &["*"])));
            assert_eq!(rules_of(&view), Some(7));
            view.apply(snapshot("e", 3, &["a"], provisional));
            assert_eq!(rules_of(&view), Some(7), "a snapshot says nothing");
            view.apply(snapshot("f", 1, &["a"], provisional));
            assert_eq!(rules_of(&view), Some(7), "a registry without its store has started again");
            view.apply(event("f", 2, Event::Change(Change { authorizations: vec![deletion(6)], ..Change::default() })));
            assert_eq!(rules_of(&view), Some(7), "an older deletion, of a backup");
            view.apply(event("f", 3, Event::Change(Change { authorizations: vec![deletion(8)], ..Change::default() })));
            assert!(matches!(set(&view).authorization, Knowledge::None { deleted: Some(_) }));
        }
        let changed = view([snapshot("e", 1, &["a"], false), change(2, &["b"], &[])]);
        assert_eq!(set(&changed).authorization, Knowledge::NEVER_SET);
        let only_changed = view([change(2, &["b"], &[])]);
        assert_eq!(set(&only_changed).authorization, Knowledge::Unknown);
    }

    #[test]
    fn rules_that_come_back_after_they_were_removed_are_not_in_effect_and_that_is_told() {
        let (logged, _guard) = Logged::here();
        let mut view =
            view([snapshot("e", 1, &["a"], false), new_rules(2, authorization(7, &["*"])), new_rules(3, deletion(8))]);
        assert!(logged.lines().is_empty(), "{:?}", logged.lines());
        view.apply(event(
            "f",
            1,
            Event::Change(Change { authorizations: vec![authorization(7, &["*"])], ..Change::default() }),
        ));
        assert!(matches!(set(&view).authorization, Knowledge::None { deleted: Some(_) }));
        let lines = logged.lines();
        assert!(lines.len() == 1 && lines[0].starts_with("a registry has authorization rules again"), "{lines:?}");
    }

    #[test]
    fn rules_that_cannot_be_understood_leave_those_before() {
        let mut view = view([snapshot("e", 1, &["a"], false), new_rules(2, authorization(7, &["*"]))]);
        view.apply(new_rules(3, authorization(8, &["a kind of a later release/x"])));
        assert_eq!((rules_of(&view), revision(&view)), (Some(7), 3));
        let mut unknown = super::tests::view([]);
        unknown.apply(new_rules(3, authorization(8, &["a kind of a later release/x"])));
        assert_eq!(set(&unknown).authorization, Knowledge::Unknown, "and not: none");
    }
}
