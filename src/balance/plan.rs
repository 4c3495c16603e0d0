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
//! - **Split**: versions take turns, so that the shares are exact, not by chance.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{account::Ejections, health::Health, tier::Tier};
use crate::policy::{Policy, SplitPolicy};

/// The weight of an instance that says none.
pub(crate) const DEFAULT_WEIGHT: u32 = 100;
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
        let split = policy.split.as_ref().filter(|split| seats.iter().any(|(_, m)| share(split, m.traits).is_some()));
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
