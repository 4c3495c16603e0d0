//! The table's promises, case by case.

use super::*;
use crate::limits::MAX_TOMBSTONES;

const TTL: Duration = Duration::from_secs(10);

fn instance(service: &str, id: &str) -> Instance {
    Instance {
        service: service.into(),
        instance_id: id.into(),
        status: InstanceStatus::Serving.into(),
        ..Instance::default()
    }
}

fn registration(service: &str, id: &str) -> Registration {
    Registration {
        instance: instance(service, id),
        methods: Arc::default(),
        lease_ttl: TTL,
        attempt: RegistrationAttempt::default(),
        nonce: uuid::Uuid::new_v4(),
    }
}

/// A table that is called in time, as by its expiry task.
struct Running {
    table: Table,
    now: Duration,
}

impl Running {
    fn new(grace: Duration) -> Self {
        Self { table: Table::new(grace), now: Duration::ZERO }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.table.next_expiry(self.now).min(end);
            self.table.expire(self.now);
        }
    }

    fn register(&mut self, service: &str, id: &str) -> Granted {
        self.table.register(self.now, registration(service, id)).expect("there is room")
    }

    fn ids(&self, service: &str) -> Vec<String> {
        let records = self.table.instances(service, None, usize::MAX).expect("the service is known");
        records.iter().map(|record| record.instance().instance_id.clone()).collect()
    }
}

#[test]
fn an_instance_is_gone_at_its_ttl_after_the_last_renewal_and_not_later() {
    let mut running = Running::new(Duration::ZERO);
    let lease = running.register("order", "a").lease_id;
    running.pass(TTL - Duration::from_millis(1));
    assert_eq!(running.table.renew(running.now, &lease), Renewal::Renewed);

    running.pass(TTL - Duration::from_millis(1));
    assert_eq!(running.ids("order"), ["a"]);
    running.pass(Duration::from_millis(1));

    assert!(running.ids("order").is_empty());
    assert_eq!(running.table.renew(running.now, &lease), Renewal::Unknown);
}

#[test]
fn a_dead_fleet_expires_whole() {
    let mut running = Running::new(Duration::ZERO);
    for n in 0..100 {
        running.register("order", &n.to_string());
    }
    running.pass(TTL);
    assert!(running.ids("order").is_empty(), "no self-preservation for instances that are really gone");
}

#[test]
fn a_suspended_registry_does_not_expire_what_could_not_reach_it() {
    let mut running = Running::new(Duration::ZERO);
    let lease = running.register("order", "a").lease_id;
    running.now += Duration::from_secs(60);

    running.table.expire(running.now);

    assert_eq!(running.ids("order"), ["a"]);
    assert_eq!(running.table.renew(running.now, &lease), Renewal::Renewed);
    running.pass(TTL);
    assert!(running.ids("order").is_empty(), "the lease is extended by the absence, not for ever");
}

#[test]
fn a_second_registration_fences_the_first() {
    let mut running = Running::new(Duration::ZERO);
    let older = running.register("order", "a").lease_id;
    let newer = running.register("order", "a").lease_id;
    let now = running.now;

    assert_eq!(running.table.renew(now, &older), Renewal::Fenced);
    assert!(running.table.set_status(now, &older, InstanceStatus::Draining).is_err());
    assert!(!running.table.deregister(now, &older));

    assert_eq!(running.ids("order"), ["a"]);
    assert_eq!(running.table.renew(now, &newer), Renewal::Renewed);
}

#[test]
fn a_registration_that_arrives_late_does_not_fence_a_later_one_of_the_same_process() {
    let mut running = Running::new(Duration::ZERO);
    let mut attempt = |number, status: InstanceStatus| {
        let attempt = RegistrationAttempt { holder: "process".into(), number, ..RegistrationAttempt::default() };
        let mut registration = Registration { attempt, ..registration("order", "a") };
        registration.instance.set_status(status);
        running.table.register(Duration::ZERO, registration).expect("there is room")
    };
    let later = attempt(2, InstanceStatus::Serving);
    for number in [1, 2] {
        let late = attempt(number, InstanceStatus::Starting);
        assert_eq!(late.lease_id, later.lease_id);
        assert_eq!(late.record.instance().status(), InstanceStatus::Serving, "what it says is out of date");
    }
    let next = attempt(3, InstanceStatus::Draining);
    assert_eq!(running.table.renew(Duration::ZERO, &later.lease_id), Renewal::Fenced);
    running.register("order", "a");
    assert_eq!(running.table.renew(Duration::ZERO, &next.lease_id), Renewal::Fenced, "by another process");
}

#[test]
fn instances_that_tell_the_same_methods_share_one_list() {
    let mut running = Running::new(Duration::ZERO);
    let mut register = |id, methods: [&str; 2]| {
        let registration = Registration { methods: methods.map(str::to_owned).into(), ..registration("order", id) };
        running.table.register(Duration::ZERO, registration).expect("there is room").lease_id
    };
    let lease = register("a", ["a.B/Get", "a.B/Put"]);
    register("b", ["a.B/Get", "a.B/Set"]);
    register("c", ["a.B/Get", "a.B/Put"]);
    // Again, and with another status.
    register("c", ["a.B/Get", "a.B/Put"]);
    running.table.set_status(Duration::ZERO, &lease, InstanceStatus::Draining).expect("it has a lease");

    let lists = running.table.methods("order");
    assert_eq!(lists.iter().map(|list| &*list[1]).collect::<Vec<_>>(), ["a.B/Put", "a.B/Set"]);
    let holders: Vec<_> = lists.iter().map(|list| Arc::strong_count(list) - 2).collect();
    assert_eq!(holders, [2, 1], "beside the table's index and this test");
}

#[test]
fn a_lease_of_an_earlier_life_is_fenced_if_another_took_its_place() {
    let zombie = Running::new(Duration::ZERO).register("order", "a").lease_id;
    let mut restarted = Running::new(Duration::ZERO);
    assert_eq!(restarted.table.renew(Duration::ZERO, &zombie), Renewal::Unknown);
    restarted.register("order", "a");
    assert_eq!(restarted.table.renew(Duration::ZERO, &zombie), Renewal::Fenced);
}

#[test]
fn the_replaced_lease_s_end_does_not_end_the_new_one() {
    let mut running = Running::new(Duration::ZERO);
    running.register("order", "a");
    running.pass(TTL / 2);
    running.register("order", "a");
    running.pass(TTL / 2);
    assert_eq!(running.ids("order"), ["a"]);
}

#[test]
fn a_status_that_is_set_already_is_no_change() {
    let mut running = Running::new(Duration::ZERO);
    let granted = running.register("order", "a");
    let set = |running: &mut Running, status| {
        running.table.set_status(running.now, &granted.lease_id, status).expect("the lease is held").revision
    };
    assert_eq!(set(&mut running, InstanceStatus::Serving), granted.revision);
    let draining = set(&mut running, InstanceStatus::Draining);
    assert!(draining > granted.revision);
    assert_eq!(set(&mut running, InstanceStatus::Draining), draining);
    assert_eq!(running.table.revision(), draining);
}

#[test]
fn a_change_touches_its_own_service_only() {
    let mut running = Running::new(Duration::ZERO);
    running.register("order", "a");
    let before = running.table.revision();
    running.table.take_touched();

    running.register("customer", "b");

    assert_eq!(running.table.take_touched(), Touched::Services(BTreeSet::from(["customer".into()])));
    let delta = running.table.changes(&Interest::of(["order"]), before).expect("remembered");
    assert!(delta.is_empty());
}

#[test]
fn a_resume_point_behind_the_remembered_departures_gets_a_snapshot_for_its_service_only() {
    let mut running = Running::new(Duration::ZERO);
    running.register("customer", "b");
    let start = running.table.revision();
    for n in 0..=MAX_TOMBSTONES {
        let lease = running.register("order", &n.to_string()).lease_id;
        running.table.deregister(running.now, &lease);
    }
    assert!(running.table.changes(&Interest::of(["order"]), start).is_none());
    assert!(running.table.changes(&Interest::All, start).is_none());
    assert!(running.table.changes(&Interest::of(["customer"]), start).is_some_and(|delta| delta.is_empty()));
    let recent = running.table.revision() - 1;
    assert!(running.table.changes(&Interest::of(["order"]), recent).is_some_and(|delta| delta.removed.len() == 1));
}

#[test]
fn a_revision_that_was_never_here_gets_a_snapshot() {
    let table = Table::new(Duration::ZERO);
    assert!(table.changes(&Interest::All, table.revision() + 1).is_none());
    assert!(table.changes(&Interest::All, 0).is_none());
    assert!(table.changes(&Interest::All, table.revision()).is_some());
}

#[test]
fn the_end_of_the_grace_period_sends_every_watcher_to_a_snapshot() {
    let mut running = Running::new(Duration::from_secs(15));
    running.register("order", "a");
    let during = running.table.revision();
    assert!(running.table.provisional());
    running.table.take_touched();

    running.pass(Duration::from_secs(15));

    assert!(!running.table.provisional());
    assert_eq!(running.table.take_touched(), Touched::All);
    assert!(running.table.changes(&Interest::of(["order"]), during).is_none());
}

#[test]
fn an_empty_service_is_known_and_a_name_never_registered_is_not() {
    let mut running = Running::new(Duration::ZERO);
    let lease = running.register("order", "a").lease_id;
    running.table.deregister(running.now, &lease);
    let states = running.table.snapshot(&Interest::of(["order", "nobody"]));
    let known: Vec<_> = states.iter().map(|state| (&*state.service, state.known, state.instances.len())).collect();
    assert_eq!(known, [("nobody", false, 0), ("order", true, 0)]);
}

#[test]
fn a_full_registry_refuses_new_instances_but_not_replacements() {
    let mut table = Table::new(Duration::ZERO);
    for n in 0..MAX_INSTANCES {
        table.register(Duration::ZERO, registration("order", &n.to_string())).expect("there is room");
    }
    let refused = table.register(Duration::ZERO, registration("order", "one-too-many"));
    let refused = refused.expect_err("it is full");
    assert_eq!(refused, Full::Instances.into());
    assert_eq!(refused.to_string(), "the registry is full (10,000 instances)");
    assert!(table.register(Duration::ZERO, registration("order", "0")).is_ok());
}

#[test]
fn a_refused_service_is_not_known_afterwards() {
    let mut running = Running::new(Duration::ZERO);
    for n in 0..MAX_SERVICES {
        let lease = running.register(&format!("s{n}"), "a").lease_id;
        running.table.deregister(running.now, &lease);
    }
    let refused = running.table.register(running.now, registration("one-too-many", "a"));
    assert_eq!(refused.expect_err("it is full"), Full::Services.into());
    assert!(running.table.instances("one-too-many", None, 1).is_none());
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let mut running = Running::new(Duration::ZERO);
    for n in 0..7 {
        running.register("order", &format!("i{n}"));
        running.register(&format!("s{n}"), "a");
    }
    let mut ids = Vec::new();
    while let page = running.table.instances("order", ids.last().map(String::as_str), 3).expect("known")
        && !page.is_empty()
    {
        ids.extend(page.iter().map(|record| record.instance().instance_id.clone()));
    }
    assert_eq!(ids, running.ids("order"));
    let names: Vec<_> = running.table.services(Some("order"), 3).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["s0", "s1", "s2"]);
}
