//! The configuration of a channel's calls, as gRPC's service config has it: the policy of the service, and what its endpoints
//! declare of each method.
//!
//! A call of a method may be sent again only if every endpoint that takes calls says so: the next attempt may come to any of
//! them, and during a rollout they need not agree.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::uri::PathAndQuery;
use parking_lot::{RwLock, RwLockReadGuard};

use super::response_times::ResponseTimes;
use crate::{
    contract::meshwork::registry::v1::{IdempotencyLevel, IdempotentMethod, Instance, InstanceStatus},
    endpoint_set::InstanceChange,
    policy::Policy,
};

/// The configuration of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallConfig {
    pub(crate) policy: Arc<Policy>,
    /// Why it may be sent again; `None`: it may not.
    pub(crate) method: Option<Arc<MethodConfig>>,
    /// How many endpoints take calls.
    pub(crate) endpoints: usize,
}

impl CallConfig {
    /// The configuration of its method if that may be at two endpoints at once: it has no side effects, one request and one
    /// response.
    pub(crate) fn hedged(&self) -> Option<&MethodConfig> {
        let read = |method: &&MethodConfig| {
            let Declared { level, unary } = method.declared;
            level == IdempotencyLevel::NoSideEffects && unary
        };
        self.method.as_deref().filter(read)
    }

    /// Whether a call of the method has one response.
    pub(crate) fn is_unary(&self) -> bool {
        self.method.as_ref().is_some_and(|method| method.declared.unary)
    }
}

/// A method that may be sent again.
#[derive(Debug)]
pub(crate) struct MethodConfig {
    declared: Declared,
    /// How long its answers take, over all endpoints.
    pub(crate) times: Arc<ResponseTimes>,
}

/// What endpoints declare of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Declared {
    /// Whether two attempts may be under way at once, and not only one after the other.
    level: IdempotencyLevel,
    /// Whether it has one request and one response.
    unary: bool,
}

/// The configuration of a channel's calls as of its latest endpoint set.
#[derive(Debug, Default)]
pub(crate) struct ServiceConfig(RwLock<Latest>);

#[derive(Debug, Default)]
struct Latest {
    policy: Arc<Policy>,
    /// By request path, as in `/shop.order.v1.OrderService/GetOrder`.
    methods: HashMap<String, Arc<MethodConfig>>,
    endpoints: usize,
    lists: Lists,
}

impl ServiceConfig {
    /// The configuration of a call that begins now.
    pub(crate) fn of(&self, path: &PathAndQuery) -> CallConfig {
        let latest = self.latest();
        CallConfig {
            policy: latest.policy.clone(),
            method: latest.methods.get(path.path()).cloned(),
            endpoints: latest.endpoints,
        }
    }

    /// The policy that is effective now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.latest().policy.clone()
    }

    /// Whether the endpoints list the method at that path.
    pub(crate) fn declares(&self, path: &str) -> bool {
        self.latest().methods.contains_key(path)
    }

    fn latest(&self) -> RwLockReadGuard<'_, Latest> {
        self.0.read()
    }

    /// Takes over a policy, and what has changed among the instances of a set. For the driver.
    pub(crate) fn follow<'a>(&self, policy: Arc<Policy>, changes: impl Iterator<Item = InstanceChange<'a>>) {
        let mut latest = self.0.write();
        let latest = &mut *latest;
        latest.policy = policy;
        let mut differs = false;
        for (_, before, now) in changes {
            for instance in before.into_iter().filter(|instance| is_serving(instance)) {
                latest.endpoints -= 1;
                differs |= latest.lists.remove(&instance.idempotent_methods);
            }
            for instance in now.into_iter().filter(|instance| is_serving(instance)) {
                latest.endpoints += 1;
                differs |= latest.lists.add(&instance.idempotent_methods);
            }
        }
        if differs {
            let known = std::mem::take(&mut latest.methods);
            let methods = latest.lists.agreed().into_iter().map(|(name, declared)| {
                let path = format!("/{name}");
                // A method is as fast as it was, whichever endpoints have come or gone.
                let times = known.get(&path).map(|method| method.times.clone()).unwrap_or_default();
                (path, Arc::new(MethodConfig { declared, times }))
            });
            latest.methods = methods.collect();
        }
    }
}

fn is_serving(instance: &Instance) -> bool {
    instance.status() == InstanceStatus::Serving
}

/// The lists of idempotent methods that instances declare, each with the number of its instances. Those of one version declare
/// the same, and there may be a thousand of them.
#[derive(Debug, Default)]
struct Lists(Vec<(Vec<IdempotentMethod>, usize)>);

impl Lists {
    /// Whether the list is a new one.
    fn add(&mut self, list: &[IdempotentMethod]) -> bool {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| known == list) {
            *count += 1;
            return false;
        }
        self.0.push((list.to_vec(), 1));
        true
    }

    /// Whether no instance has the list any more.
    fn remove(&mut self, list: &[IdempotentMethod]) -> bool {
        let Some(index) = self.0.iter().position(|(known, _)| known == list) else { return false };
        self.0[index].1 -= 1;
        let last = self.0[index].1 == 0;
        if last {
            self.0.swap_remove(index);
        }
        last
    }

    /// The methods that are on all lists, each as the most careful of them has it.
    fn agreed(&self) -> Stated<'_> {
        let mut lists = self.0.iter().map(|(list, _)| stated(list));
        let Some(mut agreed) = lists.next() else { return Stated::new() };
        for others in lists {
            agreed.retain(|name, method| match others.get(name) {
                Some(other) => {
                    *method = method.and(*other);
                    true
                }
                None => false,
            });
        }
        agreed
    }
}

type Stated<'a> = BTreeMap<&'a str, Declared>;

fn stated(methods: &[IdempotentMethod]) -> Stated<'_> {
    let named = methods.iter().filter_map(|method| Some((method.method.as_str(), Declared::stated(method)?)));
    named.collect()
}

impl Declared {
    fn stated(method: &IdempotentMethod) -> Option<Self> {
        match method.idempotency_level() {
            IdempotencyLevel::Unspecified => None,
            level @ (IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent) => {
                Some(Self { level, unary: method.unary })
            }
        }
    }

    fn and(self, other: Self) -> Self {
        let level = if self.level == other.level { self.level } else { IdempotencyLevel::Idempotent };
        Self { level, unary: self.unary && other.unary }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint_set::{EndpointSet, Endpoints, changes};

    /// Takes over a set, after none.
    fn follow(config: &ServiceConfig, set: &EndpointSet) {
        follow_after(config, &Endpoints::default(), set);
    }

    fn follow_after(config: &ServiceConfig, before: &Endpoints, set: &EndpointSet) {
        config.follow(set.policy.clone(), changes(before, &set.endpoints));
    }

    fn declared(config: &ServiceConfig, path: &'static str) -> Option<(i32, bool)> {
        let method = config.of(&PathAndQuery::from_static(path)).method?;
        Some((method.declared.level.into(), method.declared.unary))
    }

    const READ: i32 = IdempotencyLevel::NoSideEffects as i32;
    const WRITE: i32 = IdempotencyLevel::Idempotent as i32;

    fn set(instances: &[(InstanceStatus, &[(&str, i32, bool)])]) -> EndpointSet {
        let instance = |(id, (status, methods)): (usize, &(InstanceStatus, &[(&str, i32, bool)]))| {
            let method = |&(method, idempotency_level, unary): &(&str, i32, bool)| IdempotentMethod {
                method: method.into(),
                idempotency_level,
                unary,
            };
            let idempotent_methods = methods.iter().map(method).collect();
            let instance = Instance { idempotent_methods, status: (*status).into(), ..Instance::default() };
            (id.to_string().into(), Arc::new(instance))
        };
        let endpoints = instances.iter().enumerate().map(instance).collect();
        EndpointSet { endpoints: Arc::new(endpoints), ..EndpointSet::unknown("order") }
    }

    fn method(set: &EndpointSet, path: &'static str) -> Option<(i32, bool)> {
        let config = ServiceConfig::default();
        follow(&config, set);
        declared(&config, path)
    }

    #[test]
    fn a_method_may_be_sent_again_only_if_every_endpoint_that_serves_says_so() {
        use InstanceStatus::{Draining, Serving};
        let (new, old): (&[_], &[_]) = (&[("s/A", READ, true), ("s/B", READ, true)], &[("s/A", READ, true)]);
        assert_eq!(method(&set(&[(Serving, new), (Serving, new)]), "/s/B"), Some((READ, true)));
        assert_eq!(method(&set(&[(Serving, new), (Serving, old)]), "/s/B"), None);
        assert_eq!(method(&set(&[(Serving, old), (Serving, new)]), "/s/B"), None);
        assert_eq!(method(&set(&[(Serving, old), (Serving, new)]), "/s/A"), Some((READ, true)));
        assert_eq!(method(&set(&[(Serving, new), (Draining, old)]), "/s/B"), Some((READ, true)));
        assert_eq!(method(&set(&[]), "/s/A"), None);
        assert_eq!(method(&set(&[(Serving, &[("s/A", 0, true)])]), "/s/A"), None, "not idempotent, and listed");
    }

    #[test]
    fn where_endpoints_differ_the_more_careful_one_is_right() {
        use InstanceStatus::Serving;
        let differing = [(Serving, &[("s/A", READ, true)][..]), (Serving, &[("s/A", WRITE, false)][..])];
        assert_eq!(method(&set(&differing), "/s/A"), Some((WRITE, false)));
    }

    #[test]
    fn what_is_known_of_a_methods_times_outlasts_a_change_of_endpoints() {
        use InstanceStatus::Serving;
        let config = ServiceConfig::default();
        let serving: (_, &[_]) = (Serving, &[("s/A", READ, true)]);
        let p95 = || config.of(&PathAndQuery::from_static("/s/A")).method.expect("listed").times.p95();
        let one = set(&[serving]);
        follow(&config, &one);
        assert_eq!(p95(), None);
        config.of(&PathAndQuery::from_static("/s/A")).method.expect("listed").times.record(Duration::from_secs(1));
        let known = p95();
        assert!(known.is_some());
        follow_after(&config, &one.endpoints, &set(&[serving, (Serving, &[("s/A", WRITE, true)])]));
        assert_eq!((p95(), declared(&config, "/s/A")), (known, Some((WRITE, true))));
    }

    #[test]
    fn a_policy_is_effective_with_the_set_it_comes_with() {
        let config = ServiceConfig::default();
        let mut set = set(&[]);
        let path = PathAndQuery::from_static("/s/A");
        assert_eq!(config.of(&path).policy, Arc::default());
        Arc::make_mut(&mut set.policy).retry.max_attempts = 1;
        follow(&config, &set);
        assert_eq!(config.of(&path).policy.retry.max_attempts, 1);
    }

    #[test]
    fn what_is_declared_follows_each_change_as_if_it_were_read_anew() {
        use InstanceStatus::{Draining, Serving};
        let (new, old): (&[_], &[_]) = (&[("s/A", READ, true), ("s/B", READ, true)], &[("s/A", WRITE, true)]);
        let sets = [
            set(&[]),
            set(&[(Serving, new), (Serving, new)]),
            set(&[(Serving, new), (Serving, old)]),
            set(&[(Serving, new), (Draining, old), (Serving, new)]),
            set(&[(Draining, new), (Serving, old)]),
            set(&[(Serving, new)]),
            set(&[]),
        ];
        let (config, mut before) = (ServiceConfig::default(), Endpoints::default());
        for set in sets {
            follow_after(&config, &before, &set);
            for path in ["/s/A", "/s/B"] {
                assert_eq!(declared(&config, path), method(&set, path), "{path} of {set:?}");
            }
            let serving = set.endpoints.values().filter(|instance| is_serving(instance)).count();
            assert_eq!(config.of(&PathAndQuery::from_static("/s/A")).endpoints, serving);
            before = set.endpoints;
        }
    }
}
