//! The table against a simple model: whatever happens, a watcher that applies what it gets ends with the model's state.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use meshwork::contract::meshwork::registry::v1::AuthorizationRule;

use super::*;
use crate::{limits::MAX_TOMBSTONES, policies::Kept as _};

/// The shared epoch's state, as a list anyone can check by eye.
#[derive(Default)]
struct Model {
    now: Duration,
    leases: BTreeMap<InstanceId, Held>,
    known: BTreeSet<u8>,
    /// By name: those that are set.
    policies: BTreeMap<String, Policy>,
    /// By name: those that were set, or deleted and not forgotten.
    authorizations: BTreeMap<String, AuthorizationPolicy>,
}

type InstanceId = (u8, u16);

struct Held {
    lease: LeaseId,
    ttl: Duration,
    deadline: Duration,
    instance: Instance,
    methods: Arc<[String]>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Register {
        service: u8,
        id: u16,
        ttl_s: u64,
    },
    /// Many short lives of one service: more departures than are remembered.
    Churn {
        service: u8,
    },
    Renew {
        lease: prop::sample::Index,
    },
    Deregister {
        lease: prop::sample::Index,
    },
    SetStatus {
        lease: prop::sample::Index,
        status: InstanceStatus,
    },
    /// Sets a policy, or takes it back.
    SetPolicy {
        service: u8,
        set: bool,
    },
    /// Sets an authorization policy, or deletes it.
    SetAuthorization {
        service: u8,
        set: bool,
    },
    /// More policies taken back than are remembered.
    ChurnPolicies,
    /// The process runs.
    Pass {
        ms: u64,
    },
    /// The process is suspended.
    Suspend {
        s: u64,
    },
    Poll {
        watcher: prop::sample::Index,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![Just(InstanceStatus::Serving), Just(InstanceStatus::Draining)];
    let lease = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..3u8, 0..4u16, 1..6u64).prop_map(|(service, id, ttl_s)| Step::Register { service, id, ttl_s }),
        1 => (0..3u8).prop_map(|service| Step::Churn { service }),
        4 => lease().prop_map(|lease| Step::Renew { lease }),
        2 => lease().prop_map(|lease| Step::Deregister { lease }),
        3 => (lease(), status).prop_map(|(lease, status)| Step::SetStatus { lease, status }),
        3 => (0..4u8, any::<bool>()).prop_map(|(service, set)| Step::SetPolicy { service, set }),
        3 => (0..4u8, any::<bool>()).prop_map(|(service, set)| Step::SetAuthorization { service, set }),
        1 => Just(Step::ChurnPolicies),
        4 => (0..1000u64).prop_map(|ms| Step::Pass { ms }),
        1 => (2..100u64).prop_map(|s| Step::Suspend { s }),
        6 => lease().prop_map(|watcher| Step::Poll { watcher }),
    ]
}

fn name(service: u8) -> String {
    format!("service-{service}")
}

/// What a client knows: an old instance from before the registry's restart, until a snapshot that is not provisional.
struct Watcher {
    interest: Interest,
    seen: Option<u64>,
    view: BTreeMap<(String, String), Instance>,
    known: BTreeSet<String>,
    policies: BTreeMap<String, Policy>,
    authorizations: BTreeMap<String, AuthorizationPolicy>,
}

impl Watcher {
    fn new(interest: Interest) -> Self {
        let ghost = (name(0), "ghost".to_owned());
        let (view, policies) = (BTreeMap::from([(ghost, Instance::default())]), BTreeMap::new());
        Self { interest, seen: None, view, known: BTreeSet::new(), policies, authorizations: BTreeMap::new() }
    }

    fn poll(&mut self, table: &Table) {
        assert!(self.seen.is_none_or(|seen| seen <= table.revision()), "revisions never go backwards");
        match self.seen.and_then(|seen| table.changes(&self.interest, seen)) {
            Some(delta) => self.apply(delta),
            None => self.replace(&table.snapshot(&self.interest), table.provisional()),
        }
        self.seen = Some(table.revision());
        let again = table.changes(&self.interest, table.revision()).expect("this revision is remembered");
        assert!(again.is_empty(), "no change is repeated");
    }

    fn replace(&mut self, states: &[ServiceSnapshot], provisional: bool) {
        if !provisional {
            self.view.clear();
        }
        self.known = states.iter().filter(|state| state.known).map(|state| state.service.to_string()).collect();
        let policies = states.iter().filter_map(|state| state.policy.as_ref());
        self.policies = policies.map(|policy| (policy.message().service.clone(), policy.message().clone())).collect();
        // What a snapshot does not have stays.
        for policy in states.iter().filter_map(|state| state.authorization.as_ref()) {
            self.authorizations.insert(policy.message().service.clone(), policy.message().clone());
        }
        for record in states.iter().flat_map(|state| &state.instances) {
            self.update(record);
        }
    }

    fn apply(&mut self, delta: Delta) {
        let updated = delta.updated.iter().map(|r| (r.instance().service.as_str(), r.instance().instance_id.as_str()));
        let entries = updated.chain(delta.removed.iter().map(|(service, id)| (&**service, &**id)));
        let distinct: BTreeSet<_> = entries.collect();
        assert_eq!(distinct.len(), delta.updated.len() + delta.removed.len(), "one entry for an instance at most");
        let policies: BTreeSet<_> = delta.policies.iter().map(|policy| policy.message().service.as_str()).collect();
        assert_eq!(policies.len(), delta.policies.len(), "one entry for a policy at most");
        let rules: BTreeSet<_> = delta.authorizations.iter().map(|policy| policy.message().service.as_str()).collect();
        assert_eq!(rules.len(), delta.authorizations.len(), "one entry for an authorization policy at most");
        for policy in &delta.authorizations {
            self.authorizations.insert(policy.message().service.clone(), policy.message().clone());
        }
        for policy in &delta.policies {
            let policy = policy.message().clone();
            if policy.is_set() {
                self.policies.insert(policy.service.clone(), policy);
            } else {
                self.policies.remove(&policy.service);
            }
        }
        for record in &delta.updated {
            self.update(record);
        }
        for (service, id) in delta.removed {
            self.known.insert(service.to_string());
            self.view.remove(&(service.to_string(), id.to_string()));
        }
    }

    fn update(&mut self, record: &Record) {
        let instance = record.instance();
        self.known.insert(instance.service.clone());
        self.view.insert((instance.service.clone(), instance.instance_id.clone()), instance.clone());
    }
}

struct World {
    table: Table,
    model: Model,
    /// The caller's clock, which goes on during a suspension.
    now: Duration,
    given: Vec<LeaseId>,
    watchers: Vec<Watcher>,
    serial: u128,
    last_revision: u64,
}

impl World {
    fn new(grace: Duration) -> Self {
        let interests =
            [Interest::All, Interest::of([name(0)]), Interest::of([name(0), name(1)]), Interest::of(["nobody"])];
        Self {
            table: Table::new(grace),
            model: Model::default(),
            now: Duration::ZERO,
            given: Vec::new(),
            watchers: interests.map(Watcher::new).into(),
            serial: 0,
            last_revision: 0,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Register { service, id, ttl_s } => self.register(service, id, Duration::from_secs(ttl_s)),
            Step::Churn { service } => {
                for n in 0..=MAX_TOMBSTONES {
                    let id = 100 + u16::try_from(n).expect("small");
                    self.register(service, id, Duration::from_secs(1));
                    let lease = self.given.pop().expect("just given");
                    self.deregister(&lease);
                }
            }
            Step::Renew { lease } if !self.given.is_empty() => self.renew(&lease.get(&self.given).clone()),
            Step::Deregister { lease } if !self.given.is_empty() => self.deregister(&lease.get(&self.given).clone()),
            Step::SetStatus { lease, status } if !self.given.is_empty() => {
                self.set_status(&lease.get(&self.given).clone(), status);
            }
            Step::Renew { .. } | Step::Deregister { .. } | Step::SetStatus { .. } => {}
            Step::SetPolicy { service, set } => self.set_policy(name(service), set),
            Step::SetAuthorization { service, set } => self.set_authorization(name(service), set),
            Step::ChurnPolicies => {
                for n in 0..=MAX_TOMBSTONES {
                    self.set_policy(format!("churned-{n}"), false);
                }
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(ms), Duration::from_millis(ms)),
            Step::Suspend { s } => self.pass(Duration::from_secs(s), PULSE),
            Step::Poll { watcher } => {
                let index = watcher.index(self.watchers.len());
                self.watchers[index].poll(&self.table);
            }
        }
        assert!(self.table.revision() >= self.last_revision, "revisions only grow");
        self.last_revision = self.table.revision();
    }

    fn register(&mut self, service: u8, id: u16, ttl: Duration) {
        self.serial += 1;
        let instance = Instance {
            service: name(service),
            instance_id: id.to_string(),
            version: self.serial.to_string(),
            status: InstanceStatus::Serving.into(),
            ..Instance::default()
        };
        let nonce = uuid::Uuid::from_u128(self.serial);
        let methods: Arc<[String]> = [format!("a.B/{}", self.serial % 3)].into();
        let registration = Registration {
            instance: instance.clone(),
            methods: methods.clone(),
            lease_ttl: ttl,
            attempt: RegistrationAttempt::default(),
            nonce,
        };
        let lease = self.table.register(self.now, registration).expect("there is room").lease_id;
        self.given.push(lease.clone());
        self.model.known.insert(service);
        let held = Held { lease, ttl, deadline: self.model.now + ttl, instance, methods };
        self.model.leases.insert((service, id), held);
    }

    fn renew(&mut self, lease: &LeaseId) {
        let renewal = self.table.renew(self.now, lease);
        let now = self.model.now;
        let expected = match self.model.leases.values_mut().find(|held| held.lease.instance() == lease.instance()) {
            None => Renewal::Unknown,
            Some(held) if held.lease != *lease => Renewal::Fenced,
            Some(held) => {
                held.deadline = now + held.ttl;
                Renewal::Renewed
            }
        };
        assert_eq!(renewal, expected);
    }

    fn deregister(&mut self, lease: &LeaseId) {
        let ended = self.table.deregister(self.now, lease);
        let before = self.model.leases.len();
        self.model.leases.retain(|_, held| held.lease != *lease);
        assert_eq!(ended, self.model.leases.len() < before);
    }

    fn set_status(&mut self, lease: &LeaseId, status: InstanceStatus) {
        let granted = self.table.set_status(self.now, lease, status);
        let held = self.model.leases.values_mut().find(|held| held.lease == *lease);
        assert_eq!(granted.is_ok(), held.is_some());
        if let Some(held) = held {
            held.instance.set_status(status);
        }
    }

    fn set_policy(&mut self, service: String, set: bool) {
        self.serial += 1;
        let seconds = i64::try_from(self.serial).expect("few steps");
        let at = set.then_some(prost_types::Timestamp { seconds, nanos: 0 });
        let policy = Policy { service: service.clone(), update_time: at, ..Policy::default() };
        self.table.put_policy(policy.clone());
        if set {
            self.model.policies.insert(service, policy)
        } else {
            self.model.policies.remove(&service)
        };
    }

    fn set_authorization(&mut self, service: String, set: bool) {
        self.serial += 1;
        let seconds = i64::try_from(self.serial).expect("few steps");
        let policy = AuthorizationPolicy {
            service: service.clone(),
            allow: vec![AuthorizationRule::default(); usize::from(set)],
            update_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..AuthorizationPolicy::default()
        };
        self.table.put_authorization(policy.clone());
        self.model.authorizations.insert(service, policy);
    }

    fn pass(&mut self, time: Duration, counted: Duration) {
        self.now += time;
        self.table.expire(self.now);
        self.model.now += counted;
        let now = self.model.now;
        self.model.leases.retain(|_, held| held.deadline > now);
    }

    fn check(&mut self) {
        for service in 0..3 {
            let of_service = self.model.leases.iter().filter(|((of, _), _)| *of == service);
            let told: BTreeSet<_> = of_service.map(|(_, held)| held.methods.clone()).collect();
            assert_eq!(self.table.methods(&name(service)), Vec::from_iter(told), "each list of a live instance, once");
        }
        for watcher in &mut self.watchers {
            watcher.poll(&self.table);
            let watches = |service: &String| match &watcher.interest {
                Interest::All => true,
                Interest::Services(names) => names.contains(service.as_str()),
            };
            let instances = self.model.leases.values().map(|held| held.instance.clone());
            let expected: BTreeMap<_, _> = instances
                .filter(|instance| watches(&instance.service))
                .map(|instance| ((instance.service.clone(), instance.instance_id.clone()), instance))
                .collect();
            assert_eq!(watcher.view, expected);
            let known: BTreeSet<_> = self.model.known.iter().map(|service| name(*service)).filter(watches).collect();
            assert_eq!(watcher.known, known);
            let policies = self.model.policies.iter().filter(|(service, _)| watches(service));
            let policies: BTreeMap<_, _> =
                policies.map(|(service, policy)| (service.clone(), policy.clone())).collect();
            assert_eq!(watcher.policies, policies);
            let rules = self.model.authorizations.iter().filter(|(service, _)| watches(service));
            let rules: BTreeMap<_, _> = rules.map(|(service, policy)| (service.clone(), policy.clone())).collect();
            assert_eq!(watcher.authorizations, rules);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn watchers_end_with_the_state_of_the_model(
        grace_s in prop_oneof![Just(0u64), 1..20u64],
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::new(Duration::from_secs(grace_s));
        for step in steps {
            world.run(step);
        }
        for _ in 0..2 * grace_s {
            world.pass(PULSE, PULSE);
        }
        world.check();
    }
}
