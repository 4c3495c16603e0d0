//! Networks that are slow.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::{CLIENT, Client, ONE, TWO, at_once, instance, registry, simulation};

#[test]
fn delays_of_hundreds_of_milliseconds_cost_time_and_no_call() {
    let mut sim = simulation(|network| {
        network.min_message_latency(Duration::from_millis(20)).max_message_latency(Duration::from_millis(350));
    });
    registry(&mut sim);
    instance(&mut sim, ONE, &at_once());
    instance(&mut sim, TWO, &at_once());
    sim.client(CLIENT, async {
        let client = Client::seeing(&[ONE, TWO]).await?;
        client.until_both_answer().await;
        let (answered, failed) = client.call_until(sleep(Duration::from_secs(60))).await;
        assert_eq!((answered.len(), failed), (2, 0));
        assert!(client.sees(&[ONE, TWO]), "no lease ran out");
        Ok(())
    });
    sim.run().expect("as promised");
}
