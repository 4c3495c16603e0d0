//! How a client treats the instances of a service, as a plain value.
//!
//! It comes from the registry with the endpoints ([`EndpointSet::policy`](crate::discovery::EndpointSet::policy)), and may
//! change at any time: code that acts on it reads it from the latest set. What the contract
//! (`meshwork.registry.v1.Policy`) leaves unset has its default here, so that the defaults stand in one place; what a
//! field means is said there in full. Values outside of their limits never get this far: see `check`.

mod check;
pub mod limits;
mod message;

use std::{collections::BTreeMap, time::Duration};

/// How clients treat the instances of one service. The default holds until a policy is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The longest wait for the beginning of an answer, all attempts together. `None`: only the call's own deadline holds.
    pub timeout: Option<Duration>,
    /// When a call is sent again.
    pub retry: RetryPolicy,
    /// When an instance that fails gets no calls for a while.
    pub ejection: EjectionPolicy,
    /// How calls are shared between versions. `None`: versions make no difference.
    pub split: Option<SplitPolicy>,
    /// What zones mean.
    pub zones: ZonePolicy,
}

/// When a call is sent again, if its method allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most attempts of one call, hedges included, 1-10. Default: 3.
    pub max_attempts: u32,
    /// Retries and hedges that a client may send, in percent of its calls, 0-100. Default: 20.
    pub budget_percent: u32,
    /// Retries and hedges per second that are allowed in addition, 0-1000. Default: 10.
    pub budget_min_per_second: u32,
    /// The wait before the second attempt; doubles for each further one, and is jittered. Default: 25 ms.
    pub backoff_min: Duration,
    /// The longest such wait, at least `backoff_min`. Default: 250 ms.
    pub backoff_max: Duration,
    /// A call without side effects is sent to a second instance after this time, or after the 95th percentile of the
    /// method's answers (100 ms before the first one) if that is longer. `None`: never. Default: 10 ms.
    pub hedge_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            budget_percent: 20,
            budget_min_per_second: 10,
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            hedge_after: Some(Duration::from_millis(10)),
        }
    }
}

/// When an instance that fails gets no calls for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row after which it is ejected, 1-1000. Default: 5.
    pub consecutive_failures: u32,
    /// The length of the first ejection; doubles with each further one, and is jittered. Default: 1 s.
    pub base_time: Duration,
    /// The length of the longest ejection, at least `base_time`. Default: 60 s.
    pub max_time: Duration,
    /// How many of the instances may be ejected at a time, in percent, 0-100; if more would be, all are used. 0: nothing is
    /// ever ejected. Default: 50.
    pub max_ejected_percent: u32,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_time: Duration::from_secs(1),
            max_time: Duration::from_secs(60),
            max_ejected_percent: 50,
        }
    }
}

/// How calls are shared between versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPolicy {
    /// The share of each version, 0-1000 and relative to the others; their sum is not 0. A version that is not named gets
    /// no calls; the share of one without a usable instance goes to the others, and if none is left, the split is not
    /// observed.
    pub weights: BTreeMap<String, u32>,
}

/// What zones mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePolicy {
    /// Calls stay in the client's own zone while it has its share of healthy capacity; the rest spills over. Default: true.
    pub same_zone_first: bool,
}

impl Default for ZonePolicy {
    fn default() -> Self {
        Self { same_zone_first: true }
    }
}
