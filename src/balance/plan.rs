//! Which endpoints calls may go to, and in what order of preference: a pure rule.
//!
//! ```text
//!   a call ─> version, by the split ─┬─> its endpoints in our zone ───┐  less loaded of two
//!                                    └─> its endpoints in other zones ┘
//! ```
//!
//! The plan is made anew when an endpoint opens, closes, is ejected or comes back, when the set or the policy changes. So
//! it has only endpoints that may be picked, and what is lost by a version or a zone without any goes to the others in
//! proportion. Where all of a tier turn out not to be ready after all, the call goes to the next one.
//!
//! - **Ejection**: of the endpoints with a connection no more may be out than the policy says. If more would be, it is not
//!   they who are at fault, or there is no choice: panic, all are used.
//! - **Zones**: each zone is taken to make an equal share of all calls. While our zone's part of the healthy capacity is
//!   that share, its calls stay within; what it lacks spills over to the others.
//! - **Split**: versions take turns, so that the shares are exact, not by chance. It is observed while one of its endpoints
//!   is well.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{account::Ejections, health::Health, tier::Tier};
use crate::{
    endpoint_set::DEFAULT_WEIGHT,
    policy::{Policy, SplitPolicy},
};

/// 2^64: a turn is a fraction of it.
const WHOLE: u128 = 1 << 64;
/// The step from turn to turn, 2^64 divided by the golden ratio: any run of turns is spread evenly over all fractions.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a registry says about an endpoint that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// 0: the default.
    pub(crate) weight: u32,
    pub(crate) version: String,
    pub(crate) zone: String,
}

impl Traits {
    /// The weight, relative to the usual one.
    pub(super) fn relative_weight(&self) -> f64 {
        let weight = if self.weight == 0 { DEFAULT_WEIGHT } else { self.weight };
        f64::from(weight) / f64::from(DEFAULT_WEIGHT)
    }
}

/// An endpoint as a plan is made with it.
pub(super) struct Member<'a, T> {
    pub(super) endpoint: T,
    pub(super) traits: &'a Traits,
    /// When it had its first connection, if it has one now.
    pub(super) connected: Option<Instant>,
    pub(super) health: Health,
}

/// Where calls go.
#[derive(Debug)]
pub(super) struct Plan<T> {
    versions: Vec<Version<T>>,
    pub(super) ejections: Ejections,
    /// Since when the first endpoint has been there.
    pub(super) oldest: Instant,
    /// When it must be made anew, because the time of an ejection is over.
    pub(super) until: Option<Instant>,
}

/// The endpoints of one version, or of all.
#[derive(Debug)]
struct Version<T> {
    /// The turns below are its own, or those of one before it.
    end: u128,
    home: Tier<T>,
    away: Tier<T>,
    /// The part of its calls that stay in our zone.
    at_home: f64,
}

impl<T> Plan<T> {
    /// The plan of those who are in `zone` (empty: anywhere).
    pub(super) fn new(members: Vec<Member<'_, T>>, policy: &Policy, zone: &str, now: Instant) -> Self {
        let zones = members.iter().map(|member| &member.traits.zone).collect::<BTreeSet<_>>().len();
        let zone = Some(zone).filter(|zone| policy.zones.same_zone_first && !zone.is_empty());
        let connected: Vec<_> = members.into_iter().filter_map(|member| Some((member.connected?, member))).collect();
        let oldest = connected.iter().map(|(since, _)| *since).min().unwrap_or(now);
        let ejections = heeded(&connected, policy.ejection.max_ejected_percent);
        let out_until = |member: &Member<'_, T>| match member.health {
            Health::Ejected { until, .. } if until > now && ejections == Ejections::Heeded => Some(until),
            Health::Ejected { .. } | Health::Healthy { .. } | Health::Probation { .. } => None,
        };
        let until = connected.iter().filter_map(|(_, member)| out_until(member)).min();

        let mut versions = BTreeMap::new();
        let seats: Vec<_> = connected.into_iter().filter(|(_, member)| out_until(member).is_none()).collect();
        // Those who are asked once, on probation, cannot bear the calls of a whole service.
        let bears = |member: &Member<'_, T>| ejections == Ejections::Ignored || member.health.is_good();
        let is_borne = |split: &&SplitPolicy| seats.iter().any(|(_, m)| share(split, m.traits).is_some() && bears(m));
        let split = policy.split.as_ref().filter(is_borne);
        for (since, Member { endpoint, traits, .. }) in seats {
            let (name, share) = match split {
                None => ("", 1),
                Some(split) => match share(split, traits) {
                    Some(share) => (&*traits.version, share),
                    None => continue,
                },
            };
            let (_, home, away) = versions.entry(name).or_insert((share, Tier::default(), Tier::default()));
            let tier = if zone.is_none_or(|zone| *zone == traits.zone) { home } else { away };
            tier.add(endpoint, traits.relative_weight(), since);
        }
        Self { versions: lined_up(versions.into_values().collect(), zones), ejections, oldest, until }
    }

    /// The tiers to try for a call, the best first. `chance` is random in 0..1.
    pub(super) fn tiers(&self, turn: Turn, chance: f64) -> impl Iterator<Item = &Tier<T>> {
        let first = self.versions.partition_point(|version| version.end <= u128::from(turn.0));
        let (before, after) = self.versions.split_at(first.min(self.versions.len()));
        after.iter().chain(before).flat_map(move |version| {
            let Version { home, away, at_home, .. } = version;
            if chance < *at_home { [home, away] } else { [away, home] }
        })
    }
}

/// Too many are out if they are more than so many percent of those with a connection.
fn heeded<T>(connected: &[(Instant, Member<'_, T>)], max_percent: u32) -> Ejections {
    let out = connected.iter().filter(|(_, member)| !member.health.is_good()).count();
    if out * 100 > connected.len() * max_percent as usize { Ejections::Ignored } else { Ejections::Heeded }
}

/// The share of an endpoint's version, if it has any.
fn share(split: &SplitPolicy, traits: &Traits) -> Option<u32> {
    split.weights.get(&traits.version).copied().filter(|share| *share > 0)
}

/// The versions with their shares of all turns. Calls are made in so many zones.
fn lined_up<T>(versions: Vec<(u32, Tier<T>, Tier<T>)>, zones: usize) -> Vec<Version<T>> {
    let whole = versions.iter().map(|(share, ..)| u128::from(*share)).sum::<u128>();
    let mut sum = 0;
    let version = |(share, home, away): (u32, Tier<T>, Tier<T>)| {
        sum += u128::from(share);
        let at_home = home.capacity() / (home.capacity() + away.capacity()) * zones as f64;
        Version { end: WHOLE * sum / whole, home, away, at_home }
    };
    versions.into_iter().map(version).collect()
}

/// Says which version a call goes to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn(u64);

impl Turn {
    /// Makes it the turn of the next call.
    pub(super) fn advance(&mut self) {
        self.0 = self.0.wrapping_add(STEP);
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
    }

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        let names = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
        (0..1000_u32, names.clone(), names, prop::bool::weighted(0.8), prop::option::weighted(0.4, 0..20_u64)).prop_map(
            |(weight, version, zone, connected, ejected)| {
                let traits = Traits { weight, version: version.into(), zone: zone.into() };
                Endpoint { traits, connected, ejected }
            },
        )
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

    fn health(ejected: Option<u64>, now: Instant) -> Health {
        ejected.map_or(Health::GOOD, |ago| {
            let since = now.checked_sub(Duration::from_secs(ago)).expect("the clock has run for longer");
            Health::Ejected { since, until: since + TEN_SECONDS, backoff: Backoff::new(TEN_SECONDS, TEN_SECONDS) }
        })
    }

    fn plan(endpoints: &[Endpoint], policy: &Policy, zone: &str, now: Instant) -> Plan<usize> {
        let members = endpoints.iter().enumerate().map(|(index, endpoint)| Member {
            endpoint: index,
            traits: &endpoint.traits,
            connected: endpoint.connected.then_some(now),
            health: health(endpoint.ejected, now),
        });
        Plan::new(members.collect(), policy, zone, now)
    }

    fn seats(plan: &Plan<usize>, turn: Turn) -> Vec<usize> {
        plan.tiers(turn, 0.5).flat_map(Tier::endpoints).copied().collect()
    }

    proptest! {
        /// Every call finds whoever may be picked, each once, and nobody else.
        #[test]
        fn all_who_may_be_picked_are_in_the_plan_and_no_others(
            endpoints in prop::collection::vec(endpoint(), 0..12),
            policy in policy(),
            zone in prop_oneof![Just(""), Just("a")],
            turn: u64,
        ) {
            let now = Instant::now() + Duration::from_secs(100);
            let seats = seats(&plan(&endpoints, &policy, zone, now), Turn(turn));

            let connected: Vec<_> = (0..endpoints.len()).filter(|index| endpoints[*index].connected).collect();
            let out = connected.iter().filter(|index| endpoints[**index].ejected.is_some()).count();
            let panic = out * 100 > connected.len() * policy.ejection.max_ejected_percent as usize;
            let is_well = |index: &usize| panic || endpoints[*index].ejected.is_none_or(|ago| ago >= 10);
            let has_share = |index: &usize| {
                let version = &endpoints[*index].traits.version;
                policy.split.as_ref().is_none_or(|split| split.weights.get(version).is_some_and(|share| *share > 0))
            };
            let well: Vec<_> = connected.into_iter().filter(is_well).collect();
            let shared: Vec<_> = well.iter().copied().filter(has_share).collect();
            let is_borne = shared.iter().any(|index| panic || endpoints[*index].ejected.is_none());
            let mut expected = if is_borne { shared } else { well };

            let mut sorted = seats.clone();
            sorted.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
        }

        /// Whatever the weights, and wherever one begins to count.
        #[test]
        fn the_shares_of_versions_are_exact(begin: u64, one in 0..1000_u32, other in 1..1000_u32) {
            let endpoints = ["v1", "v2"].map(|version| Endpoint {
                traits: Traits { version: version.into(), ..Traits::default() },
                connected: true,
                ejected: None,
            });
            let weights = BTreeMap::from([("v1".into(), one), ("v2".into(), other)]);
            let policy = Policy { split: Some(SplitPolicy { weights }), ..Policy::default() };
            let plan = plan(&endpoints, &policy, "", Instant::now());
            let mut turn = Turn(begin);
            let first = (0..1000).filter(|_| {
                turn.advance();
                seats(&plan, turn)[0] == 0
            });
            let expected = 1000.0 * f64::from(one) / f64::from(one + other);
            prop_assert!((first.count() as f64 - expected).abs() < 5.0);
        }
    }

    /// The part of the calls that stay in zone `a`, with so many endpoints in each of three zones of which so many are well.
    fn at_home(zones: [(&str, u32, u32); 3]) -> f64 {
        let endpoints: Vec<_> = zones
            .iter()
            .flat_map(|(zone, count, well)| (0..*count).map(move |n| (*zone, n < *well)))
            .map(|(zone, connected)| Endpoint {
                traits: Traits { zone: zone.into(), ..Traits::default() },
                connected,
                ejected: None,
            })
            .collect();
        plan(&endpoints, &Policy::default(), "a", Instant::now()).versions[0].at_home.min(1.0)
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
            assert!((at_home(zones) - expected).abs() < 1e-9, "{zones:?}: {}", at_home(zones));
        }
    }
}
