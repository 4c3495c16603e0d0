//! Hosts that can no longer reach each other, and what happens to calls.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::watch, time::sleep};

use crate::world::{CLIENT, Client, ONE, REGISTRY, TWO, at_once, instance, registry, simulation};

/// Longer than any lease, silence or keepalive limit.
const LONG: Duration = Duration::from_secs(60);
/// What finds a connection that is silent: keepalive, after 10 + 5 s, and a call's deadline.
const FOUND_DEAD: Duration = Duration::from_secs(17);

#[test]
fn a_client_that_is_cut_off_from_the_registry_goes_on_and_sees_new_instances_afterwards() {
    let mut sim = simulation(|_| {});
    let (go, second) = watch::channel(false);
    registry(&mut sim);
    instance(&mut sim, ONE, &at_once());
    instance(&mut sim, TWO, &second);
    sim.client(CLIENT, async move {
        let client = Client::seeing(&[ONE]).await?;
        turmoil::partition(CLIENT, REGISTRY);
        go.send_replace(true);
        let (answered, failed) = client.call_until(sleep(LONG)).await;
        assert_eq!((answered, failed), (BTreeSet::from([ONE.to_owned()]), 0));
        assert!(client.sees(&[ONE]), "it cannot learn of another");

        turmoil::repair(CLIENT, REGISTRY);
        let (_, failed) = client.call_until(client.until_seen(&[ONE, TWO])).await;
        assert_eq!(failed, 0);
        client.until_both_answer().await;
        Ok(())
    });
    sim.run().expect("as promised");
}

#[test]
fn an_instance_that_is_cut_off_from_the_registry_comes_back_by_itself_and_no_call_is_lost() {
    let mut sim = simulation(|_| {});
    registry(&mut sim);
    instance(&mut sim, ONE, &at_once());
    instance(&mut sim, TWO, &at_once());
    sim.client(CLIENT, async {
        let client = Client::seeing(&[ONE, TWO]).await?;
        client.until_both_answer().await;
        turmoil::partition(ONE, REGISTRY);
        let (_, failed) = client.call_until(client.until_seen(&[TWO])).await;
        assert_eq!(failed, 0, "while its lease ran out");
        let (_, failed) = client.call_until(sleep(LONG)).await;
        assert_eq!(failed, 0, "without it");

        turmoil::repair(ONE, REGISTRY);
        let (_, failed) = client.call_until(client.until_seen(&[ONE, TWO])).await;
        assert_eq!(failed, 0, "while it came back");
        client.until_both_answer().await;
        Ok(())
    });
    sim.run().expect("as promised");
}

#[test]
fn calls_leave_an_instance_that_the_client_cannot_reach_and_return_when_it_can() {
    let mut sim = simulation(|_| {});
    registry(&mut sim);
    instance(&mut sim, ONE, &at_once());
    instance(&mut sim, TWO, &at_once());
    sim.client(CLIENT, async {
        let client = Client::seeing(&[ONE, TWO]).await?;
        client.until_both_answer().await;
        turmoil::partition(CLIENT, ONE);
        // Those that were sent to it end at their deadline, which `call` checks.
        client.call_until(sleep(FOUND_DEAD)).await;
        let (answered, failed) = client.call_until(sleep(LONG)).await;
        assert_eq!((answered, failed), (BTreeSet::from([TWO.to_owned()]), 0));
        assert!(client.sees(&[ONE, TWO]), "the registry still reaches it");

        turmoil::repair(CLIENT, ONE);
        client.until_both_answer().await;
        let (_, failed) = client.call_until(sleep(LONG)).await;
        assert_eq!(failed, 0);
        Ok(())
    });
    sim.run().expect("as promised");
}

#[test]
fn a_client_that_is_cut_off_from_every_host_is_back_when_its_network_is() {
    let mut sim = simulation(|_| {});
    registry(&mut sim);
    instance(&mut sim, ONE, &at_once());
    instance(&mut sim, TWO, &at_once());
    sim.client(CLIENT, async {
        let client = Client::seeing(&[ONE, TWO]).await?;
        [ONE, TWO, REGISTRY].into_iter().for_each(|host| turmoil::partition(CLIENT, host));
        let (answered, failed) = client.call_until(sleep(LONG)).await;
        assert!(answered.is_empty() && failed > 0, "{answered:?}");
        assert!(client.sees(&[ONE, TWO]), "what was known is kept");

        [ONE, TWO, REGISTRY].into_iter().for_each(|host| turmoil::repair(CLIENT, host));
        client.until_both_answer().await;
        Ok(())
    });
    sim.run().expect("as promised");
}
