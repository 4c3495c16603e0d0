//! Which endpoints of a large set a client uses: the first ones by rendezvous hashing, as in gRFC A68.
//!
//! Each client ranks all endpoints by a hash of its own id and theirs. So its choice is stable: adding or removing an
//! endpoint changes at most one place per group, and many clients together use all endpoints alike. Without subsets,
//! each of m clients holds a connection to each of n endpoints, and every change of the set costs m new ones.
//!
//! Endpoints in use that do not answer are not replaced while the registry lists them: it drops them with their lease,
//! and if each client made up for them at once, an outage would end in a storm of connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// Endpoints of a service that a client uses by default: enough that some may fail, and that two choices are good ones.
pub(crate) const DEFAULT_SUBSET: usize = 32;

/// About `size` of the endpoints, each named with the group that it belongs to (0: all of them). Each group has its
/// part, so that shares between them stay as they are, and none is left out; that may be one endpoint more per group.
pub(crate) fn subset<'a, G: Ord>(
    client: u64,
    size: usize,
    endpoints: impl IntoIterator<Item = (&'a str, G)>,
) -> BTreeSet<&'a str> {
    let mut groups: BTreeMap<G, Vec<&str>> = BTreeMap::new();
    for (id, group) in endpoints {
        groups.entry(group).or_default().push(id);
    }
    let all = groups.values().map(Vec::len).sum::<usize>();
    let size = if size == 0 { all } else { size.min(all) };
    let first = |mut ids: Vec<&'a str>| {
        let part = (ids.len() * size).div_ceil(all);
        if part < ids.len() {
            ids.select_nth_unstable_by_key(part, |id| rank(client, id));
            ids.truncate(part);
        }
        ids
    };
    groups.into_values().flat_map(first).collect()
}

fn rank(client: u64, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (client, id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("instance-{n}")).collect()
    }

    fn of(client: u64, size: usize, ids: &[String]) -> BTreeSet<&str> {
        subset(client, size, ids.iter().map(|id| (id.as_str(), ())))
    }

    #[test]
    fn up_to_its_size_all_are_used_and_above_it_exactly_that_many() {
        let ids = ids(1000);
        for (count, size, used) in [(0, 32, 0), (1, 32, 1), (32, 32, 32), (33, 32, 32), (1000, 32, 32), (1000, 0, 1000)]
        {
            assert_eq!(of(7, size, &ids[..count]).len(), used, "{count}");
        }
    }

    #[test]
    fn clients_use_all_endpoints_alike() {
        let ids = ids(100);
        let mut uses: BTreeMap<&str, u32> = BTreeMap::new();
        for client in 0..1000 {
            of(client, 32, &ids).into_iter().for_each(|id| *uses.entry(id).or_default() += 1);
        }
        assert_eq!(uses.len(), 100);
        assert!(uses.values().all(|uses| (250..400).contains(uses)), "about 320: {uses:?}");
    }

    #[test]
    fn each_group_has_its_part_and_none_is_left_out() {
        let ids = ids(1000);
        let group = |n: usize| {
            if n == 0 {
                "canary"
            } else if n < 500 {
                "home"
            } else {
                "away"
            }
        };
        let groups: BTreeMap<_, _> = ids.iter().enumerate().map(|(n, id)| (id.as_str(), group(n))).collect();
        let used = subset(7, 32, groups.iter().map(|(id, group)| (*id, *group)));
        let count = |group: &str| used.iter().filter(|id| groups[*id] == group).count();
        assert_eq!((count("canary"), count("home"), count("away")), (1, 16, 16));
    }

    proptest! {
        /// Of what comes and goes, one change of the set is one change of the subset at most, in each group: where one
        /// group's part shrinks, another's may grow.
        #[test]
        fn one_endpoint_that_comes_or_goes_changes_one_place_per_group_at_most(
            client: u64,
            count in 1..200_usize,
            canaries in 0..200_usize,
            gone: usize,
        ) {
            let ids = ids(count);
            let groups: BTreeMap<_, _> = ids.iter().enumerate().map(|(n, id)| (id.as_str(), n < canaries)).collect();
            let mut less = groups.clone();
            less.remove(ids[gone % count].as_str());
            let of = |groups: &BTreeMap<&'_ str, bool>| -> BTreeSet<String> {
                subset(client, 32, groups.iter().map(|(id, group)| (*id, *group))).into_iter().map(str::to_owned).collect()
            };
            let (before, after) = (of(&groups), of(&less));
            for group in [false, true] {
                let changed = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
                    these.difference(those).filter(|id| groups[id.as_str()] == group).count()
                };
                prop_assert!(changed(&before, &after) <= 1 && changed(&after, &before) <= 1);
            }
        }
    }
}
