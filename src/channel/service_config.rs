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
    endpoint_set::EndpointSet,
    policy::Policy,
};

/// The configuration of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallConfig {
    pub(crate) policy: Arc<Policy>,
    /// What allows it to be sent again; `None`: nothing does.
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

    /// Takes over what a set says. For the driver.
    pub(crate) fn follow(&self, set: &EndpointSet) {
        let serving = set.endpoints.values().filter(|instance| instance.status() == InstanceStatus::Serving);
        let endpoints = serving.clone().count();
        let agreed = agreed(serving.map(|instance| &**instance));
        let mut latest = self.0.write();
        let known = std::mem::take(&mut latest.methods);
        let methods = agreed.into_iter().map(|(name, declared)| {
            let path = format!("/{name}");
            // A method is as fast as it was, whoever has come or gone.
            let times = known.get(&path).map(|method| method.times.clone()).unwrap_or_default();
            (path, Arc::new(MethodConfig { declared, times }))
        });
        *latest = Latest { policy: set.policy.clone(), methods: methods.collect(), endpoints };
    }
}

type Stated<'a> = BTreeMap<&'a str, Declared>;

/// The methods that all of the instances list, each as the most careful of them does.
fn agreed<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Stated<'a> {
    let mut lists = instances.into_iter().map(|instance| &instance.idempotent_methods);
    let Some(first) = lists.next() else { return Stated::new() };
    let mut agreed = stated(first);
    // Instances of one version say the same, and there may be a thousand of them.
    for list in lists.filter(|list| *list != first) {
        let others = stated(list);
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
            (id.to_string(), Arc::new(instance))
        };
        let endpoints = instances.iter().enumerate().map(instance).collect();
        EndpointSet { endpoints: Arc::new(endpoints), ..EndpointSet::unknown("order") }
    }

    fn method(set: &EndpointSet, path: &'static str) -> Option<(i32, bool)> {
        let config = ServiceConfig::default();
        config.follow(set);
        let method = config.of(&PathAndQuery::from_static(path)).method?;
        Some((method.declared.level.into(), method.declared.unary))
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
        config.follow(&set(&[serving]));
        assert_eq!(p95(), None);
        config.of(&PathAndQuery::from_static("/s/A")).method.expect("listed").times.record(Duration::from_secs(1));
        let known = p95();
        assert!(known.is_some());
        config.follow(&set(&[serving, serving]));
        assert_eq!(p95(), known);
    }

    #[test]
    fn a_policy_is_effective_with_the_set_it_comes_with() {
        let config = ServiceConfig::default();
        let mut set = set(&[]);
        let path = PathAndQuery::from_static("/s/A");
        assert_eq!(config.of(&path).policy, Arc::default());
        Arc::make_mut(&mut set.policy).retry.max_attempts = 1;
        config.follow(&set);
        assert_eq!(config.of(&path).policy.retry.max_attempts, 1);
    }
}
