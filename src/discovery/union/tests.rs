//! Registries that agree, differ, leave and return.

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
    let earlier = ["gone", "here"].map(|id| (Arc::<str>::from(id), Arc::new(instance(id, InstanceStatus::Serving))));
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
    told.rules(B, "b", Some(authorization("3", 41)));
    assert_eq!(told.known(), ("3".into(), false), "each has its own clock");
}

#[test]
fn that_there_are_no_rules_is_known_once_every_registry_has_spoken_or_is_not_waited_for() {
    let mut told = Told::nothing();
    told.rules(A, "a", None);
    assert_eq!(told.known(), ("unknown".into(), false), "B may know of some");
    told.rules(A, "a", Some(deletion(10)));
    assert_eq!(told.known(), ("unknown".into(), false), "or of later ones");
    told.rules(B, "b", None);
    assert_eq!(told.known(), ("none".into(), false));
    told.0.away(B);
    assert_eq!(told.known(), ("none".into(), false), "it has spoken");

    let mut told = Told::nothing();
    told.rules(A, "a", None);
    told.0.excuse(B);
    assert_eq!(told.known(), ("none".into(), false));
    told.rules(B, "b", Some(authorization("1", 10)));
    assert_eq!(told.known(), ("1".into(), true), "it was heard after all");

    let mut told = Told::nothing();
    told.rules(A, "a", Some(authorization("1", 10)));
    assert_eq!(told.known(), ("1".into(), false), "rules wait for nobody");

    let mut told = Told::nothing();
    told.0.recall("order", recalled([], Knowledge::NEVER_SET));
    assert_eq!(told.known(), ("unknown".into(), false), "some may have been set since");
    told.0.excuse(A);
    told.0.excuse(B);
    assert_eq!(told.known(), ("none".into(), false));

    let mut told = Told::nothing();
    told.rules(A, "a", None);
    let mut strange = authorization("1", 10);
    strange.allow[0].callers = vec!["group/of-a-later-version".into()];
    told.rules(B, "b", Some(strange));
    assert_eq!(told.known(), ("unknown".into(), false), "there are rules, whatever they say");
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
