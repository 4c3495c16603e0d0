//! Zones, splits and subsets, as the endpoints and the policy come from discovery.

use super::*;
use crate::policy::{Policy, SplitPolicy};

fn in_zone(id: &str, zone: &str) -> Instance {
    Instance { zone: zone.into(), ..instance(id, InstanceStatus::Serving) }
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_the_zone_of_the_client_and_spill_over_when_it_is_lost() {
    let bench = Bench::at(Locality { zone: "here".into(), ..Locality::default() }, &[]);
    let hosts = [bench.host("near"), bench.host("far")];
    bench.endpoints.send_replace(set([in_zone("near", "here"), in_zone("far", "there")]));
    bench.until_answered_by("near").await;
    assert_eq!(bench.answers(50).await, BTreeMap::from([("near".into(), 50)]));

    let [near, _far] = hosts;
    near.kill().await;
    assert_eq!(bench.answers(50).await, BTreeMap::from([("far".into(), 50)]));

    let _near = bench.host("near");
    bench.until_answered_by("near").await;
    assert_eq!(bench.answers(50).await, BTreeMap::from([("near".into(), 50)]));
}

#[tokio::test(start_paused = true)]
async fn a_split_takes_effect_on_the_connections_that_are_there_and_changes_live() {
    let bench = Bench::new(&[]);
    let _hosts = [bench.host("old"), bench.host("new")];
    let of = |id: &str, version: &str| Instance { version: version.into(), ..instance(id, InstanceStatus::Serving) };
    bench.endpoints.send_replace(set([of("old", "v1"), of("new", "v2")]));
    bench.until_answered_by("old").await;
    bench.until_answered_by("new").await;
    let attempts = bench.net.attempts();
    for (old, new) in [(95, 5), (5, 95)] {
        let weights = BTreeMap::from([("v1".into(), old), ("v2".into(), new)]);
        let policy = Policy { split: Some(SplitPolicy { weights }), ..Policy::default() };
        bench.endpoints.send_modify(|set| set.policy = Arc::new(policy));
        // The driver takes it in before the next calls.
        tokio::task::yield_now().await;
        let answers = bench.answers(1000).await;
        assert!(answers["new"].abs_diff(new as usize * 10) <= 3, "{answers:?}");
    }
    assert_eq!(bench.net.attempts(), attempts);
}

#[tokio::test(start_paused = true)]
async fn of_a_large_set_a_client_connects_to_its_subset_and_makes_up_for_one_that_leaves() {
    let bench = Bench::at(Locality { subset_size: 4, ..Locality::default() }, &[]);
    let ids: Vec<_> = (0..20).map(|n| format!("i{n}")).collect();
    let _hosts: Vec<_> = ids.iter().map(|id| bench.host(id)).collect();
    let serving = |ids: &[String]| set(ids.iter().map(|id| instance(id, InstanceStatus::Serving)));
    let used = || bench.channel.endpoints().into_iter().map(|endpoint| endpoint.instance_id).collect::<Vec<_>>();
    bench.endpoints.send_replace(serving(&ids));
    bench.answers(20).await;
    assert_eq!((used().len(), bench.net.attempts()), (4, 4));

    let gone = used().remove(0);
    let rest: Vec<_> = ids.into_iter().filter(|id| *id != gone).collect();
    bench.endpoints.send_replace(serving(&rest));
    bench.answers(20).await;
    assert_eq!((used().len(), bench.net.attempts()), (4, 5));
    assert!(!used().contains(&gone));
}
