//! Which endpoints calls may go to, and in what order of preference: a pure rule.
//!
//! ```text
//!   a call ─> version, by the split ─┬─> its endpoints in our zone ───┐  tower's Balance
//!                                    └─> its endpoints in other zones ┘
//! ```
//!
//! The driver makes the plan anew when an endpoint connects, fails, is ejected or comes back, and when the set or the policy
//! changes. So it has only endpoints that may be picked; the share of a version or a zone without any goes to the
//! others in proportion. If no endpoint of a pool takes a call after all, the call goes to the next pool.
//!
//! - **Ejection**: the policy limits how many of the connected endpoints may be out. If more would be, either it is not
//!   the endpoints that are at fault, or there is no choice: panic (Envoy's panic threshold), all are used. A panic lasts a moment at
//!   least, so that a service at the threshold does not change its pools with every call.
//! - **Zones**: each zone is assumed to make an equal share of all calls. While our zone's part of the healthy capacity is at least
//!   that share, its calls stay in it; the excess spills over to the others.
//! - **Split**: versions take turns, so that the shares are exact, not by chance. It is observed while one of its endpoints
//!   is healthy.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    endpoint::{Candidate, Traits, outlier_detection::OutlierState},
    policy::{Policy, SplitPolicy},
};

/// 2^64: a turn is a fraction of it.
const WHOLE: u128 = 1 << 64;
/// The step from turn to turn, 2^64 divided by the golden ratio: any run of turns is spread evenly over all fractions.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// How long a panic lasts at least.
const SHORTEST_PANIC: Duration = Duration::from_millis(100);

/// Where calls go. Endpoints are named by their place among the candidates.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) targets: Vec<WeightedTarget>,
    /// Too many endpoints are ejected since then: all with a connection are used.
    pub(super) panic_since: Option<Instant>,
    /// When it must be made anew without any event.
    pub(super) until: Option<Instant>,
}

/// The endpoints of one version, or of all, and their share of the calls (xDS's weighted cluster).
#[derive(Debug)]
pub(super) struct WeightedTarget {
    /// The turns below are its own, or those of one before it.
    pub(super) end: u128,
    /// Empty: versions make no difference.
    pub(super) version: String,
    pub(super) own_zone: Vec<usize>,
    pub(super) other_zones: Vec<usize>,
    /// The part of its calls that stay in our zone.
    pub(super) locality_share: f64,
}

impl Plan {
    /// The plan of a client in `zone` (empty: anywhere). `panic_since` is that of the plan before.
    pub(super) fn new(
        candidates: &[&Candidate],
        policy: &Policy,
        zone: &str,
        panic_since: Option<Instant>,
        now: Instant,
    ) -> Self {
        let zone = Some(zone).filter(|zone| policy.zones.same_zone_first && !zone.is_empty());
        let zones = zone.map_or(1, |_| count_zones(candidates));
        let connected = || candidates.iter().enumerate().filter(|(_, candidate)| candidate.ready_since.is_some());
        let panic_since = panic(connected(), policy.ejection.max_ejected_percent, panic_since, now);
        let out_until = |candidate: &Candidate| out_until(candidate, panic_since.is_some(), now);
        let calmer = panic_since.map(|since| since + SHORTEST_PANIC).filter(|end| *end > now);
        let until = connected().filter_map(|(_, candidate)| out_until(candidate)).chain(calmer).min();

        let usable = || connected().filter(|(_, candidate)| out_until(candidate).is_none());
        // An endpoint on probation is asked once: it cannot bear the calls of a whole service.
        let bears = |candidate: &Candidate| panic_since.is_some() || candidate.outlier.is_healthy();
        let split_is_usable =
            |split: &&SplitPolicy| usable().any(|(_, c)| share(split, &c.traits).is_some() && bears(c));
        let split = policy.split.as_ref().filter(split_is_usable);
        let mut versions: BTreeMap<&str, Version> = BTreeMap::new();
        for (index, Candidate { traits, weight, .. }) in usable() {
            let (name, share) = match split {
                None => ("", 1),
                Some(split) => match share(split, traits) {
                    Some(share) => (&*traits.version, share),
                    None => continue,
                },
            };
            let version = versions.entry(name).or_insert_with(|| Version::new(share));
            let side = if zone.is_none_or(|zone| *zone == traits.zone) { &mut version.own } else { &mut version.other };
            side.0.push(index);
            side.1 += weight;
        }
        Self { targets: weighted_targets(versions, zones), panic_since, until }
    }
}

/// How many zones the candidates are in. Zones are few, so one insert after the other beats the sort in `collect`.
fn count_zones(candidates: &[&Candidate]) -> usize {
    let mut zones = BTreeSet::new();
    zones.extend(candidates.iter().map(|candidate| &candidate.traits.zone));
    zones.len()
}

/// Endpoints and their capacity, the sum of their weights.
type WeightedEndpoints = (Vec<usize>, f64);

struct Version {
    share: u32,
    own: WeightedEndpoints,
    other: WeightedEndpoints,
}

impl Version {
    fn new(share: u32) -> Self {
        Self { share, own: (Vec::new(), 0.0), other: (Vec::new(), 0.0) }
    }
}

/// Since when there is a panic: too many are out if they are more than that many percent of those with a connection.
fn panic<'a>(
    connected: impl Iterator<Item = (usize, &'a &'a Candidate)>,
    max_percent: u32,
    before: Option<Instant>,
    now: Instant,
) -> Option<Instant> {
    let (mut all, mut out) = (0, 0);
    for (_, candidate) in connected {
        all += 1;
        out += usize::from(!candidate.outlier.is_healthy());
    }
    let too_many = out * 100 > all * max_percent as usize;
    let recent = before.filter(|since| out > 0 && *since + SHORTEST_PANIC > now);
    if too_many { before.or(Some(now)) } else { recent }
}

/// Until when a connected endpoint may not be picked; `None`: it may.
fn out_until(candidate: &Candidate, panic: bool, now: Instant) -> Option<Instant> {
    let ejected = match candidate.outlier {
        OutlierState::Ejected { until, .. } => Some(until),
        OutlierState::Probation { .. } => candidate.outlier.probe_times_out(),
        OutlierState::Healthy { .. } => None,
    };
    ejected.filter(|_| !panic).max(candidate.paused_until).filter(|until| *until > now)
}

/// The share of an endpoint's version, if it has any.
fn share(split: &SplitPolicy, traits: &Traits) -> Option<u32> {
    split.weights.get(&traits.version).copied().filter(|share| *share > 0)
}

/// The versions with their shares of all turns, where calls are made in `zones` zones.
fn weighted_targets(versions: BTreeMap<&str, Version>, zones: usize) -> Vec<WeightedTarget> {
    let whole = versions.values().map(|version| u128::from(version.share)).sum::<u128>();
    let mut sum = 0;
    let target = |(version, Version { share, own, other }): (&str, Version)| {
        sum += u128::from(share);
        let locality_share = own.1 / (own.1 + other.1) * zones as f64;
        let (end, version) = (WHOLE * sum / whole, version.to_owned());
        WeightedTarget { end, version, own_zone: own.0, other_zones: other.0, locality_share }
    };
    versions.into_iter().map(target).collect()
}

/// Says which version a call goes to: a fraction of the whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn(pub(super) u64);

impl Turn {
    /// How far each turn is from the one before it.
    pub(super) const STEP: u64 = STEP;

    /// Which of the targets, given the end of each, a call of this turn tries first. The others follow in order.
    pub(super) fn first(self, ends: impl ExactSizeIterator<Item = u128>) -> usize {
        let count = ends.len();
        let mut ends = ends;
        ends.position(|end| end > u128::from(self.0)).unwrap_or(0).min(count.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::backoff::Backoff;

    #[derive(Clone, Debug)]
    struct Endpoint {
        traits: Traits,
        connected: bool,
        /// Seconds since it was ejected, if it was, for ten seconds.
        ejected: Option<u64>,
        paused: bool,
    }

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        let names = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
        let stands = (prop::bool::weighted(0.8), prop::option::weighted(0.4, 0..20_u64), prop::bool::weighted(0.1));
        (0..1000_u32, names.clone(), names, stands).prop_map(|(weight, version, zone, (connected, ejected, paused))| {
            let traits = Traits { weight, version: version.into(), zone: zone.into(), ..Traits::default() };
            Endpoint { traits, connected, ejected, paused }
        })
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let versions = prop::collection::btree_map(prop_oneof![Just("a".to_owned()), Just("b".into())], 0..3_u32, 1..3);
        let split = prop::option::of(versions.prop_filter("some share", |split| split.values().any(|w| *w > 0)));
        (split, any::<bool>(), 0..=100_u32).prop_map(|(split, same_zone_first, max_ejected_percent)| {
            let mut policy = Policy { split: split.map(|weights| SplitPolicy { weights }), ..Policy::default() };
            policy.zones.same_zone_first = same_zone_first;
            policy.ejection.max_ejected_percent = max_ejected_percent;
            policy
        })
    }

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    fn outlier(ejected: Option<u64>, now: Instant) -> OutlierState {
        ejected.map_or(OutlierState::HEALTHY, |ago| {
            let since = now.checked_sub(Duration::from_secs(ago)).expect("the clock has run for longer");
            OutlierState::Ejected { since, until: since + TEN_SECONDS, backoff: Backoff::new(TEN_SECONDS, TEN_SECONDS) }
        })
    }

    fn candidate(endpoint: &Endpoint, now: Instant) -> Candidate {
        Candidate {
            generation: 0,
            weight: endpoint.traits.relative_weight(),
            traits: std::sync::Arc::new(endpoint.traits.clone()),
            ready_since: endpoint.connected.then_some(now),
            outlier: outlier(endpoint.ejected, now),
            paused_until: endpoint.paused.then_some(now + TEN_SECONDS),
        }
    }

    fn plan(endpoints: &[Endpoint], policy: &Policy, zone: &str, now: Instant) -> Plan {
        let candidates: Vec<_> = endpoints.iter().map(|endpoint| candidate(endpoint, now)).collect();
        Plan::new(&candidates.iter().collect::<Vec<_>>(), policy, zone, None, now)
    }

    fn members(plan: &Plan) -> Vec<usize> {
        plan.targets.iter().flat_map(|target| target.own_zone.iter().chain(&target.other_zones)).copied().collect()
    }

    fn first(plan: &Plan, turn: Turn) -> usize {
        turn.first(plan.targets.iter().map(|target| target.end))
    }

    proptest! {
        /// Every endpoint that may be picked is in one pool, and no other is in any.
        #[test]
        fn all_who_may_be_picked_are_in_the_plan_and_no_others(
            endpoints in prop::collection::vec(endpoint(), 0..12),
            policy in policy(),
            zone in prop_oneof![Just(""), Just("a")],
        ) {
            let now = Instant::now() + Duration::from_secs(100);
            let mut members = members(&plan(&endpoints, &policy, zone, now));

            let connected: Vec<_> = (0..endpoints.len()).filter(|index| endpoints[*index].connected).collect();
            let out = connected.iter().filter(|index| endpoints[**index].ejected.is_some()).count();
            let panic = out * 100 > connected.len() * policy.ejection.max_ejected_percent as usize;
            let is_well = |index: &usize| {
                !endpoints[*index].paused && (panic || endpoints[*index].ejected.is_none_or(|ago| ago >= 10))
            };
            let has_share = |index: &usize| {
                let version = &endpoints[*index].traits.version;
                policy.split.as_ref().is_none_or(|split| split.weights.get(version).is_some_and(|share| *share > 0))
            };
            let well: Vec<_> = connected.into_iter().filter(is_well).collect();
            let shared: Vec<_> = well.iter().copied().filter(has_share).collect();
            let split_is_usable = shared.iter().any(|index| panic || endpoints[*index].ejected.is_none());
            let mut expected = if split_is_usable { shared } else { well };

            members.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(members, expected);
        }

        /// Whatever the weights, and wherever one begins to count.
        #[test]
        fn the_shares_of_versions_are_exact(begin: u64, one in 0..1000_u32, other in 1..1000_u32) {
            let endpoints = ["v1", "v2"].map(|version| Endpoint {
                traits: Traits { version: version.into(), ..Traits::default() },
                connected: true,
                ejected: None,
                paused: false,
            });
            let weights = BTreeMap::from([("v1".into(), one), ("v2".into(), other)]);
            let policy = Policy { split: Some(SplitPolicy { weights }), ..Policy::default() };
            let plan = plan(&endpoints, &policy, "", Instant::now());
            let target = |turn: u64| first(&plan, Turn(begin.wrapping_add(turn.wrapping_mul(STEP))));
            let first = (0..1000).filter(|turn| plan.targets[target(*turn)].version == "v1");
            let expected = 1000.0 * f64::from(one) / f64::from(one + other);
            prop_assert!((first.count() as f64 - expected).abs() < 5.0);
        }
    }

    /// The part of the calls that stay in zone `a`, with that many endpoints in each of three zones, of which that many are well.
    fn locality_share(zones: [(&str, u32, u32); 3]) -> f64 {
        let endpoints: Vec<_> = zones
            .iter()
            .flat_map(|(zone, count, well)| (0..*count).map(move |n| (*zone, n < *well)))
            .map(|(zone, connected)| Endpoint {
                traits: Traits { zone: zone.into(), ..Traits::default() },
                connected,
                ejected: None,
                paused: false,
            })
            .collect();
        plan(&endpoints, &Policy::default(), "a", Instant::now()).targets[0].locality_share.min(1.0)
    }

    #[test]
    fn calls_stay_at_home_as_far_as_the_zone_has_its_share_of_healthy_capacity() {
        for (zones, expected) in [
            ([("a", 2, 2), ("b", 2, 2), ("c", 2, 2)], 1.0),
            ([("a", 2, 1), ("b", 2, 2), ("c", 2, 2)], 0.6),
            ([("a", 2, 0), ("b", 2, 2), ("c", 2, 2)], 0.0),
            ([("a", 2, 2), ("b", 2, 0), ("c", 2, 2)], 1.0),
            ([("a", 2, 1), ("b", 2, 0), ("c", 2, 0)], 1.0),
            ([("a", 1, 1), ("b", 4, 4), ("c", 5, 5)], 0.3),
        ] {
            assert!((locality_share(zones) - expected).abs() < 1e-9, "{zones:?}: {}", locality_share(zones));
        }
    }

    #[test]
    fn a_panic_lasts_a_moment_although_the_reason_has_gone_and_ends_at_once_when_all_are_well() {
        let now = Instant::now() + TEN_SECONDS * 2;
        let endpoint = |ejected| Endpoint { traits: Traits::default(), connected: true, ejected, paused: false };
        let made = |endpoints: &[Endpoint], before, now| {
            let candidates: Vec<_> = endpoints.iter().map(|endpoint| candidate(endpoint, now)).collect();
            Plan::new(&candidates.iter().collect::<Vec<_>>(), &Policy::default(), "", before, now)
        };
        let (two_out, one_out) = ([endpoint(Some(1)), endpoint(Some(1))], [endpoint(None), endpoint(Some(1))]);
        let panic = made(&two_out, None, now);
        assert_eq!((panic.panic_since, members(&panic).len()), (Some(now), 2));

        let later = made(&one_out, panic.panic_since, now + SHORTEST_PANIC / 2);
        assert_eq!((later.panic_since, members(&later).len()), (Some(now), 2));
        assert_eq!(later.until, Some(now + SHORTEST_PANIC), "and then it is looked at again");
        let over = made(&one_out, later.panic_since, now + SHORTEST_PANIC);
        assert_eq!((over.panic_since, members(&over)), (None, vec![0]));
        assert_eq!(made(&[endpoint(None)], panic.panic_since, now).panic_since, None);
    }
}
