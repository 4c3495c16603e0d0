//! What several registries report, as one: the union of their instances, by id.
//!
//! Registries of one epoch are one store behind several addresses, and report the same. Those of different epochs know
//! nothing of each other: an instance registers at each that it reaches, and exists while one of them lists it. Pure.
//!
//! - The last word of an unreachable registry counts, but not against a reachable one: an instance that another says has left,
//!   has left.
//! - What a registry has not confirmed since its restart (it is provisional, or silent so far) counts like the word of an
//!   unreachable one.
//! - Of differing policies the one that was set last holds, and the difference is logged.
//! - Authorization rules outlive the word of the registry that has said them: only rules or a deletion that came later replace them.

use std::{collections::BTreeMap, sync::Arc};

use prost_types::Timestamp;

use super::fold::{Earlier, Service, View};
use crate::{
    authorization::Knowledge,
    contract::meshwork::registry::v1::{Instance, InstanceStatus, ResumePoint, WatchResponse},
    endpoint_set::{EndpointSet, Endpoints, changes},
    policy::Policy,
};

/// What is known from all registries, and from an earlier run.
#[derive(Debug, Default)]
pub(super) struct Union {
    registries: Vec<Registry>,
    /// What an earlier run has left on disk, until a registry has sent everything.
    earlier: View,
    /// The authorization rules of each service that a view is of, as they were set last.
    authorizations: BTreeMap<Arc<str>, Knowledge>,
}

#[derive(Debug, Default)]
struct Registry {
    view: View,
    /// Whether its watch is open.
    there: bool,
}

impl Union {
    /// The given number of registries, none of which has sent anything yet.
    pub(super) fn new(registries: usize) -> Self {
        Self { registries: (0..registries).map(|_| Registry::default()).collect(), ..Self::default() }
    }

    /// Takes in a response of the registry at `index`.
    pub(super) fn apply(&mut self, index: usize, response: WatchResponse, services: &[Arc<str>]) {
        let before = services.iter().map(|service| self.endpoints(index, service)).collect::<Vec<_>>();
        let registry = &mut self.registries[index];
        registry.there = true;
        registry.view.apply(response);
        for service in services {
            if let Some(told) = registry.view.service(service) {
                self.authorizations.entry(service.clone()).or_default().learn(&told.authorization);
            }
        }
        self.succeed(index);
        for (service, before) in services.iter().zip(before) {
            let now = self.endpoints(index, service);
            if !Arc::ptr_eq(&before, &now) {
                let left = changes(&before, &now).filter(|(_, _, now)| now.is_none());
                left.for_each(|(id, ..)| self.has_left(index, service, id));
            }
            if self.registries[index].view.service(service).is_some_and(|service| service.settled) {
                self.earlier.forget_service(service);
            }
        }
    }

    /// The watch of the registry at `index` has ended.
    pub(super) fn away(&mut self, index: usize) {
        self.registries[index].there = false;
        self.registries[index].view.away();
    }

    /// Takes in what an earlier run knew about a service that this one has not heard of yet.
    pub(super) fn recall(&mut self, service: &str, earlier: Earlier) {
        if !self.has(service) {
            self.authorizations.entry(service.into()).or_default().learn(&earlier.authorization);
            self.earlier.recall(service, earlier);
        }
    }

    /// Takes in the rules that an earlier run knew.
    pub(super) fn recall_rules(&mut self, service: &str, rules: &Knowledge) {
        self.authorizations.entry(service.into()).or_default().learn(rules);
    }

    /// Forgets the services that the registry at `index` is no longer watched for. What other registries have told stays: their
    /// own watches may stand, and would not tell it again.
    pub(super) fn retain(&mut self, index: usize, services: &[Arc<str>]) {
        self.registries[index].view.retain(services);
        self.earlier.retain(services);
        let mut authorizations = std::mem::take(&mut self.authorizations);
        authorizations.retain(|service, _| self.has(service) || services.contains(service));
        self.authorizations = authorizations;
    }

    /// Whether anything is known of a service.
    pub(super) fn has(&self, service: &str) -> bool {
        self.views().any(|(view, _)| view.has(service))
    }

    /// Where the watch of the registry at `index` goes on.
    pub(super) fn resume_point(&self, index: usize) -> Option<ResumePoint> {
        self.registries[index].view.resume_point()
    }

    /// The set of a known service, and whether its registries' policies or authorization rules differ.
    pub(super) fn set(&self, service: &Arc<str>) -> Option<(EndpointSet, bool)> {
        let told: Vec<(&Service, bool)> =
            self.views().filter_map(|(view, there)| Some((view.service(service)?, there))).collect();
        let (policy, policies_differ) = policy(&told);
        let authorization = self.authorizations.get(service).cloned().unwrap_or_default();
        let differ = policies_differ || rules_differ(&told, &authorization);
        if told.is_empty() {
            return None;
        }
        let mut revisions: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (epoch, revision) in self.registries.iter().filter_map(|registry| registry.view.at()) {
            let seen = revisions.entry(epoch.clone()).or_default();
            *seen = revision.max(*seen);
        }
        let set = EndpointSet {
            service: service.clone(),
            revisions,
            known: told.iter().any(|(service, _)| service.known),
            endpoints: endpoints(&told),
            policy,
            authorization,
        };
        Some((set, differ))
    }

    /// What an unreachable registry of the same store has sent counts as an earlier word of the one at `index`.
    fn succeed(&mut self, index: usize) {
        let epoch = self.registries[index].view.at().map(|(epoch, _)| epoch.clone());
        let is_same = |registry: &Registry| registry.view.at().map(|(epoch, _)| epoch) == epoch.as_ref();
        for (other, registry) in self.registries.iter_mut().enumerate() {
            if other != index && !registry.there && is_same(registry) {
                registry.view = View::default();
            }
        }
    }

    fn views(&self) -> impl Iterator<Item = (&View, bool)> {
        self.registries.iter().map(|registry| (&registry.view, registry.there)).chain([(&self.earlier, false)])
    }

    fn endpoints(&self, index: usize, service: &str) -> Endpoints {
        self.registries[index].view.service(service).map(|service| service.endpoints.clone()).unwrap_or_default()
    }

    /// The registry at `index` reports that an instance has left.
    fn has_left(&mut self, index: usize, service: &str, instance_id: &str) {
        for (other, registry) in self.registries.iter_mut().enumerate() {
            if other != index {
                registry.view.forget(service, instance_id, !registry.there);
            }
        }
        self.earlier.forget(service, instance_id, true);
    }
}

/// All instances; for one known to several registries, a reachable registry's word counts, and among those the most cautious.
fn endpoints(told: &[(&Service, bool)]) -> Endpoints {
    if let [(service, _)] = told {
        return service.endpoints.clone();
    }
    let mut all: BTreeMap<Arc<str>, (bool, &Arc<Instance>)> = BTreeMap::new();
    for (service, there) in told {
        for (id, instance) in service.endpoints.iter() {
            let word = (*there, caution(instance));
            if all.get(id).is_none_or(|(there, known)| (*there, caution(known)) < word) {
                all.insert(id.clone(), (*there, instance));
            }
        }
    }
    Arc::new(all.into_iter().map(|(id, (_, instance))| (id, instance.clone())).collect())
}

/// Of two states of one instance, the one that keeps calls away was set for a reason, and has yet to reach the other registry.
fn caution(instance: &Instance) -> u8 {
    match instance.status() {
        InstanceStatus::Unspecified => 0,
        InstanceStatus::Serving => 1,
        InstanceStatus::Starting => 2,
        InstanceStatus::NotServing => 3,
        InstanceStatus::Draining => 4,
    }
}

/// The policy that was set last, and whether registries that are there tell of different ones.
fn policy(told: &[(&Service, bool)]) -> (Arc<Policy>, bool) {
    let time = |service: &Service| service.policy_time.as_ref().map(|Timestamp { seconds, nanos }| (*seconds, *nanos));
    // Of those that were set at the same time, or never, the word of one that is there.
    let latest = told.iter().max_by_key(|(service, there)| (time(service), *there));
    let latest = latest.map(|(service, _)| service.policy.clone()).unwrap_or_default();
    let differ = settled(told).any(|service| service.policy != latest);
    (latest, differ)
}

/// Whether registries that are there tell of other rules than those in effect.
fn rules_differ(told: &[(&Service, bool)], in_effect: &Knowledge) -> bool {
    settled(told).any(|service| service.authorization.rules() != in_effect.rules())
}

/// What the registries that are there have told completely.
fn settled<'a>(told: &'a [(&'a Service, bool)]) -> impl Iterator<Item = &'a Service> {
    told.iter().filter(|(service, there)| *there && service.settled).map(|(service, _)| *service)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract::meshwork::registry::v1::{
        self as contract, Change, InstanceRef, ServiceInstances, Snapshot, watch_response::Event,
    };

    const A: usize = 0;
    const B: usize = 1;

    fn instance(id: &str, status: InstanceStatus) -> Instance {
        Instance {
            service: "order".into(),
            instance_id: id.into(),
            address: format!("{id}:1"),
            status: status.into(),
            ..Instance::default()
        }
    }

    fn recalled<const N: usize>(endpoints: [(Arc<str>, Arc<Instance>); N], authorization: Knowledge) -> Earlier {
        Earlier { endpoints: Arc::new(BTreeMap::from(endpoints)), policy: Policy::default(), authorization }
    }

    /// Two registries, and what they have sent.
    struct Told(Union);

    impl Told {
        fn nothing() -> Self {
            Self(Union::new(2))
        }

        fn event(&mut self, index: usize, epoch: &str, revision: u64, event: Event) {
            let response = WatchResponse { epoch: epoch.into(), revision, event: Some(event) };
            self.0.apply(index, response, &["order".into()]);
        }

        fn snapshot(&mut self, index: usize, epoch: &str, ids: &[&str], provisional: bool) {
            self.snapshot_with(index, epoch, ids, provisional, None);
        }

        fn snapshot_with(
            &mut self,
            index: usize,
            epoch: &str,
            ids: &[&str],
            provisional: bool,
            policy: Option<contract::Policy>,
        ) {
            let instances = ids.iter().map(|id| instance(id, InstanceStatus::Serving)).collect();
            let services =
                vec![ServiceInstances { service: "order".into(), known: true, instances, policy, authorization: None }];
            self.event(index, epoch, 1, Event::Snapshot(Snapshot { services, provisional }));
        }

        fn removed(&mut self, index: usize, epoch: &str, id: &str) {
            let removed = vec![InstanceRef { service: "order".into(), instance_id: id.into() }];
            self.event(index, epoch, 2, Event::Change(Change { removed, ..Change::default() }));
        }

        fn set(&self) -> EndpointSet {
            self.0.set(&"order".into()).expect("told of").0
        }

        fn ids(&self) -> String {
            self.set().endpoints.keys().cloned().collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn an_instance_is_there_while_one_registry_says_so() {
        let mut told = Told::nothing();
        told.snapshot(A, "a", &["1", "2"], false);
        told.snapshot(B, "b", &["2", "3"], false);
        assert_eq!(told.ids(), "1 2 3");
        assert!(told.set().has_seen("a", 1) && told.set().has_seen("b", 1) && !told.set().has_seen("b", 2));
        told.removed(A, "a", "2");
        assert_eq!(told.ids(), "1 2 3", "it cannot reach A");
        told.removed(B, "b", "2");
        assert_eq!(told.ids(), "1 3");
    }

    #[test]
    fn an_unreachable_registry_keeps_its_word_but_not_against_one_that_is_there() {
        let mut told = Told::nothing();
        told.snapshot(A, "a", &["1", "2", "only at a"], false);
        told.snapshot(B, "b", &["1", "2"], false);
        told.0.away(A);
        assert_eq!(told.ids(), "1 2 only at a");
        told.removed(B, "b", "1");
        assert_eq!(told.ids(), "2 only at a", "it left while A was away");

        told.snapshot(A, "a2", &["3"], true);
        assert_eq!(told.ids(), "2 3 only at a", "A has restarted: one instance is added, and none is removed");
        told.removed(B, "b", "2");
        assert_eq!(told.ids(), "3 only at a", "A had only remembered it");
        told.snapshot(A, "a2", &["3"], false);
        assert_eq!(told.ids(), "3");
    }

    #[test]
    fn what_was_forgotten_at_anothers_word_is_asked_for_again() {
        let mut told = Told::nothing();
        told.snapshot(A, "a", &["1", "2"], false);
        told.snapshot(B, "b", &["1"], false);
        told.0.away(A);
        assert!(told.0.resume_point(A).is_some());
        told.removed(B, "b", "1");
        assert_eq!(told.ids(), "2");
        assert_eq!(told.0.resume_point(A), None, "to A it never left, so that no change would bring it back");
        told.snapshot(A, "a", &["1", "2"], false);
        assert_eq!(told.ids(), "1 2");
        assert!(told.0.resume_point(A).is_some());
    }

    #[test]
    fn an_instance_that_went_down_with_a_registry_is_gone_once_that_is_known_to_be_away() {
        let mut told = Told::nothing();
        told.snapshot(A, "a", &["1", "2"], false);
        told.snapshot(B, "b", &["1", "2"], false);
        told.removed(B, "b", "1");
        assert_eq!(told.ids(), "1 2", "A may know better");
        told.0.away(A);
        assert_eq!(told.ids(), "2");
        assert_eq!(told.0.resume_point(A), None);

        told.snapshot(A, "a", &["1", "2"], false);
        told.snapshot(B, "b", &["1", "2"], false);
        told.removed(B, "b", "1");
        let updated = vec![instance("1", InstanceStatus::Serving)];
        told.event(A, "a", 3, Event::Change(Change { updated, ..Change::default() }));
        told.0.away(A);
        assert_eq!(told.ids(), "1 2", "A has told of it since");
    }

    #[test]
    fn two_registries_of_which_one_was_away_are_one_mesh_again() {
        let mut told = Told::nothing();
        told.snapshot(B, "b", &["old"], false);
        told.snapshot(A, "a2", &["new"], true);
        assert_eq!(told.ids(), "new old", "a newcomer sees both");
        told.snapshot(A, "a2", &["new", "old"], false);
        assert_eq!(told.ids(), "new old");
    }

    #[test]
    fn the_word_that_keeps_calls_away_counts() {
        for (first, second) in [(A, B), (B, A)] {
            let mut told = Told::nothing();
            told.snapshot(first, "e1", &["1"], false);
            told.snapshot(second, "e2", &["1"], false);
            let updated = vec![instance("1", InstanceStatus::Draining)];
            told.event(first, "e1", 2, Event::Change(Change { updated, ..Change::default() }));
            assert_eq!(told.set().endpoints["1"].status(), InstanceStatus::Draining);
            told.0.away(first);
            assert_eq!(told.set().endpoints["1"].status(), InstanceStatus::Serving, "the word of one that is there");
        }
    }

    #[test]
    fn what_an_earlier_run_left_stays_until_a_registry_has_told_all() {
        let mut told = Told::nothing();
        let earlier =
            ["gone", "here"].map(|id| (Arc::<str>::from(id), Arc::new(instance(id, InstanceStatus::Serving))));
        told.0.recall("order", recalled(earlier.clone(), Knowledge::Unknown));
        assert_eq!(told.ids(), "gone here");
        assert!(!told.set().is_heard());
        told.snapshot(A, "a", &["new"], true);
        assert_eq!(told.ids(), "gone here new");
        told.snapshot(B, "b", &["here"], false);
        assert_eq!(told.ids(), "here new");
        told.0.recall("order", recalled(earlier, Knowledge::Unknown));
        assert_eq!(told.ids(), "here new", "too late");
    }

    #[test]
    fn of_policies_that_differ_the_one_that_was_set_last_holds_and_it_is_reported() {
        let policy = |seconds: i64, update_time: i64| contract::Policy {
            service: "order".into(),
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            update_time: Some(Timestamp { seconds: update_time, nanos: 0 }),
            ..contract::Policy::default()
        };
        let timeout = |told: &Told| {
            let (set, differ) = told.0.set(&"order".into()).expect("told of");
            (set.policy.timeout.map(|timeout| Duration::as_secs(&timeout)), differ)
        };
        let mut told = Told::nothing();
        told.snapshot_with(A, "a", &[], false, Some(policy(1, 100)));
        assert_eq!(timeout(&told), (Some(1), false));
        told.snapshot_with(B, "b", &[], true, None);
        assert_eq!(timeout(&told), (Some(1), false), "it has just started");
        told.snapshot_with(B, "b", &[], false, None);
        assert_eq!(timeout(&told), (Some(1), true), "it has none");
        told.snapshot_with(B, "b", &[], false, Some(policy(2, 200)));
        assert_eq!(timeout(&told), (Some(2), true));
        told.0.away(A);
        assert_eq!(timeout(&told), (Some(2), false));
        told.snapshot_with(A, "a", &[], false, Some(policy(2, 150)));
        assert_eq!(timeout(&told), (Some(2), false), "they are the same");
    }

    fn authorization(etag: &str, seconds: i64) -> contract::AuthorizationPolicy {
        let rule = contract::AuthorizationRule { callers: vec!["*".into()], methods: vec!["a.C/*".into()] };
        contract::AuthorizationPolicy { allow: vec![rule], etag: etag.into(), ..deletion(seconds) }
    }

    fn deletion(seconds: i64) -> contract::AuthorizationPolicy {
        let update_time = Some(Timestamp { seconds, nanos: 0 });
        contract::AuthorizationPolicy { service: "order".into(), update_time, ..Default::default() }
    }

    impl Told {
        /// A final snapshot.
        fn rules(&mut self, index: usize, epoch: &str, authorization: Option<contract::AuthorizationPolicy>) {
            let service =
                ServiceInstances { service: "order".into(), known: true, authorization, ..ServiceInstances::default() };
            self.event(index, epoch, 1, Event::Snapshot(Snapshot { services: vec![service], provisional: false }));
        }

        /// The etag of the rules, or that there are none; and whether the registries differ.
        fn known(&self) -> (String, bool) {
            let (set, differ) = self.0.set(&"order".into()).expect("told of");
            let known = match &set.authorization {
                Knowledge::Unknown => "unknown".to_owned(),
                Knowledge::None { .. } => "none".to_owned(),
                Knowledge::Rules(rules) => rules.etag().to_owned(),
            };
            (known, differ)
        }
    }

    #[test]
    fn of_rules_that_differ_those_that_were_set_last_hold_and_a_deletion_counts_as_set() {
        let mut told = Told::nothing();
        told.rules(A, "a", None);
        assert_eq!(told.known(), ("none".into(), false));
        told.rules(B, "b", Some(authorization("1", 10)));
        assert_eq!(told.known(), ("1".into(), true), "A has none");
        told.rules(A, "a", Some(authorization("2", 20)));
        assert_eq!(told.known(), ("2".into(), true));
        told.rules(B, "b", Some(deletion(15)));
        assert_eq!(told.known(), ("2".into(), true), "they were set after that");
        told.rules(B, "b", Some(deletion(30)));
        assert_eq!(told.known(), ("none".into(), true));
        told.rules(A, "a2", Some(authorization("2", 20)));
        assert_eq!(told.known(), ("none".into(), true), "A has restarted with what it had");
        told.rules(A, "a2", Some(authorization("3", 40)));
        assert_eq!(told.known().0, "3");
        told.rules(B, "b", Some(authorization("3", 40)));
        assert_eq!(told.known(), ("3".into(), false));
    }

    #[test]
    fn rules_of_an_earlier_run_hold_against_a_registry_that_has_lost_them() {
        let mut told = Told::nothing();
        let earlier = Knowledge::new(&authorization("1", 10)).expect("good rules");
        told.0.retain(A, &["order".into()]);
        told.0.recall_rules("order", &earlier);
        told.0.retain(A, &["order".into()]);
        told.rules(A, "a", None);
        assert_eq!(told.known().0, "1");
        told.rules(A, "a", Some(authorization("2", 20)));
        assert_eq!(told.known().0, "2", "the registry's later word");
    }

    #[test]
    fn rules_outlive_every_registry_that_has_said_them() {
        let lost = |told: &mut Told| {
            told.rules(B, "b", None);
            told.0.away(A);
            assert_eq!(told.known().0, "1", "A is away");
            told.rules(A, "a2", None);
            assert_eq!(told.known().0, "1", "A has lost its store");
            told.0.away(A);
            told.rules(B, "a2", None);
            assert_eq!(told.known().0, "1", "B is A's store behind another address");
        };
        let mut told = Told::nothing();
        told.rules(A, "a", Some(authorization("1", 10)));
        lost(&mut told);

        let mut told = Told::nothing();
        let earlier = Knowledge::new(&authorization("1", 10)).expect("good rules");
        told.0.recall("order", recalled([], earlier));
        assert_eq!(told.known().0, "1", "on disk");
        told.rules(A, "a", None);
        lost(&mut told);
        told.0.retain(A, &[]);
        told.0.retain(B, &[]);
        assert!(told.0.authorizations.is_empty(), "nothing asks for the service any more");
    }
}
