//! How far a subscription has come, for whoever waits for it or looks at it.

use std::{convert::Infallible, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{PARTITIONS, Position};

/// How often the lag is told: oftener than it is collected, by Prometheus's custom of 15 s.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a subscription moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Not connected to its source; it tries again. Holds the last error, if there was one.
    Connecting(Option<String>),
    /// Reads.
    Running,
    /// Stopped, in part or whole, by an error that needs a person; nothing is lost.
    Stopped(String),
}

/// How far a subscription has come, by partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether it moves.
    pub state: SubscriptionState,
    /// The source's store; empty until it was reached, or a cursor of it was found.
    pub store_id: String,
    /// All up to here has had its effects in this store.
    pub applied: Vec<u64>,
    /// The source's last positions that are known here.
    pub heads: Vec<u64>,
}

impl Snapshot {
    /// Events that are known to be there and have had no effects here yet.
    pub fn lag(&self) -> u64 {
        self.heads.iter().zip(&self.applied).map(|(head, applied)| head.saturating_sub(*applied)).sum()
    }
}

/// A handle to a subscription's progress; clones share it.
#[derive(Clone)]
pub struct Progress {
    sender: watch::Sender<Snapshot>,
}

impl Default for Progress {
    fn default() -> Self {
        let none = vec![0; PARTITIONS as usize];
        let state = SubscriptionState::Connecting(None);
        Self {
            sender: watch::Sender::new(Snapshot { state, store_id: String::new(), applied: none.clone(), heads: none }),
        }
    }
}

impl Progress {
    /// How far it has come.
    pub fn snapshot(&self) -> Snapshot {
        self.sender.borrow().clone()
    }

    /// Waits until all up to `position` has had its effects. Waits for ever if the source never gets there: bound it.
    pub async fn wait_for(&self, at: Position) {
        let mut receiver = self.sender.subscribe();
        let reached = receiver.wait_for(|s| s.applied.get(at.partition as usize).is_some_and(|p| *p >= at.position));
        reached.await.expect("this handle holds a sender");
    }

    /// How far it has come, and each time that has changed.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// Tells the metrics again and again how far it is behind, also while the source is away: that is when somebody looks.
    /// Silent until the source was reached, because its heads are not known before.
    pub(super) async fn report(self, source: &'static str, group: String) -> Infallible {
        let lag = || metrics::gauge!("meshwork_stream_lag_events", "source" => source, "group" => group.clone());
        loop {
            sleep(REPORT_INTERVAL).await;
            let snapshot = self.snapshot();
            if !snapshot.store_id.is_empty() {
                lag().set(snapshot.lag() as f64);
            }
        }
    }

    pub(super) fn set_state(&self, state: SubscriptionState) {
        self.sender.send_if_modified(|snapshot| {
            let changed = snapshot.state != state;
            snapshot.state = state;
            changed
        });
    }

    pub(super) fn set_store(&self, store_id: &str) {
        self.sender.send_modify(|snapshot| store_id.clone_into(&mut snapshot.store_id));
    }

    pub(super) fn applied(&self, applied: impl IntoIterator<Item = Position>) {
        self.sender.send_if_modified(|snapshot| raise(&mut snapshot.applied, applied));
    }

    pub(super) fn heads(&self, heads: impl IntoIterator<Item = Position>) {
        self.sender.send_if_modified(|snapshot| raise(&mut snapshot.heads, heads));
    }
}

/// Positions never go back. Says whether one went on.
fn raise(positions: &mut [u64], to: impl IntoIterator<Item = Position>) -> bool {
    let mut raised = false;
    for at in to {
        if let Some(position) = positions.get_mut(at.partition as usize).filter(|position| **position < at.position) {
            *position = at.position;
            raised = true;
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_told_from_when_the_source_was_reached_whether_or_not_it_is_there() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let progress = Progress::default();
        let reporting = tokio::spawn(progress.clone().report("order", "customer".into()));
        sleep(2 * REPORT_INTERVAL).await;
        assert_eq!(recorder.handle().render(), "", "nobody knows it");

        progress.set_store("store");
        progress.heads([Position { partition: 0, position: 7 }]);
        progress.set_state(SubscriptionState::Connecting(Some("the source is away".into())));
        for applied in [0, 3] {
            progress.applied([Position { partition: 0, position: applied }]);
            sleep(2 * REPORT_INTERVAL).await;
            let expected = format!("meshwork_stream_lag_events{{source=\"order\",group=\"customer\"}} {}", 7 - applied);
            let told = recorder.handle().render();
            assert!(told.lines().any(|line| line == expected), "{told}");
        }
        reporting.abort();
    }
}
