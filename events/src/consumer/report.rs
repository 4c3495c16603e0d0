//! Reports a running subscription: its metrics and its health.

use std::{convert::Infallible, time::Duration};

use meshwork::health::Conditioner;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Progress, Snapshot, SubscriptionState, progress};
use crate::{
    store::Database,
    writer::{CursorName, cursor},
};

/// The age of an unread event from which its reader is unhealthy: longer than any restart, and than an order waits.
pub const MAX_UNREAD_AGE: Duration = Duration::from_secs(30);
/// How often its health is checked.
const CONDITION_INTERVAL: Duration = Duration::from_secs(1);
/// How often the metrics are set: more often than Prometheus collects them, by default every 15 s.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Reports until it is dropped.
pub(super) async fn run(
    database: Database,
    cursor: CursorName,
    source: &'static str,
    group: &str,
    progress: &Progress,
    conditioner: &Conditioner,
) -> Infallible {
    // Apart, so that a database which does not answer holds up no report of health.
    tokio::select! {
        never = report_health(source, group, progress, conditioner) => never,
        never = report_lag(&database, &cursor, source, group, progress) => never,
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn report_health(
    source: &'static str,
    group: &str,
    progress: &Progress,
    conditioner: &Conditioner,
) -> Infallible {
    let mut changes = progress.watch();
    let mut state = StateGauge::new(source, group);
    let (mut conditions, mut metrics) = (every(CONDITION_INTERVAL), every(METRICS_INTERVAL));
    loop {
        // All arms are cancel-safe; after each wake-up everything is read anew.
        tokio::select! {
            _ = conditions.tick() => {}
            changed = changes.changed() => changed.expect("the progress is held here"),
            _ = metrics.tick() => state.repeat(),
        }
        let (condition, now) = {
            let snapshot = changes.borrow_and_update();
            (condition(&snapshot, progress.longest_unread()), state_name(&snapshot.state))
        };
        state.set(now);
        let problem = condition.clone().err();
        if conditioner.set(condition) {
            match problem {
                Some(problem) => tracing::error!(source, group, problem, "the subscription is unhealthy"),
                None => tracing::info!(source, group, "the subscription is healthy again"),
            }
        }
    }
}

/// Whether a subscription is healthy. An unreachable source is not its reader's fault, however old its last event is.
fn condition(snapshot: &Snapshot, unread: Option<Duration>) -> Result<(), String> {
    let late = |why: &str| match unread {
        Some(age) if age > MAX_UNREAD_AGE => Err(format!("an event has been unread for {} s{why}", age.as_secs())),
        Some(_) | None => Ok(()),
    };
    match &snapshot.state {
        SubscriptionState::Stopped(problem) => Err(problem.clone()),
        SubscriptionState::Connecting(_) => Ok(()),
        SubscriptionState::Running => late(""),
        SubscriptionState::Retrying(problem) => late(&format!(": {problem}")),
    }
}

/// The lag is read from the cursors, so that every process of a group reports the same figure: also while the source is unreachable,
/// which is when an operator looks. Nothing is reported until the source was reached, because its heads are not known before.
async fn report_lag(
    database: &Database,
    cursor: &CursorName,
    source: &'static str,
    group: &str,
    progress: &Progress,
) -> Infallible {
    let mut metrics = every(METRICS_INTERVAL);
    loop {
        metrics.tick().await;
        let snapshot = progress.snapshot();
        if snapshot.store_id.is_empty() {
            continue;
        }
        let age = progress.oldest_unread().unwrap_or_default().as_secs_f64();
        gauge("meshwork_subscription_oldest_unread_seconds", source, group).set(age);
        match cursor::load(database, cursor).await {
            Ok(cursors) => {
                let position = |partition: u32| cursors.get(&partition).map_or(0, |cursor| cursor.position);
                let lag = progress::lag(&snapshot.heads, (0..crate::outbox::PARTITIONS).map(position));
                gauge("meshwork_subscription_lag_events", source, group).set(lag as f64);
            }
            Err(error) => tracing::debug!(source, %error, "cursors could not be read; the lag is not reported"),
        }
    }
}

fn gauge(name: &'static str, source: &'static str, group: &str) -> metrics::Gauge {
    metrics::gauge!(name, "source" => source, "group" => group.to_owned())
}

/// A state's name in metrics and on the command line.
pub(super) fn state_name(state: &SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::Running => "running",
        SubscriptionState::Connecting(_) => "connecting",
        SubscriptionState::Retrying(_) => "retrying",
        SubscriptionState::Stopped(_) => "stopped",
    }
}

/// Counts this subscription under its state, so that those of one process add up.
struct StateGauge {
    source: &'static str,
    group: String,
    now: Option<&'static str>,
}

impl StateGauge {
    fn new(source: &'static str, group: &str) -> Self {
        Self { source, group: group.to_owned(), now: None }
    }

    fn set(&mut self, state: &'static str) {
        if self.now != Some(state) {
            self.leave();
            self.of(state).increment(1);
            self.now = Some(state);
        }
    }

    /// Exporters drop a gauge that is not changed for a while, as of something that is gone.
    fn repeat(&self) {
        if let Some(state) = self.now {
            self.of(state).increment(0);
        }
    }

    fn leave(&mut self) {
        if let Some(state) = self.now.take() {
            self.of(state).decrement(1);
        }
    }

    fn of(&self, state: &'static str) -> metrics::Gauge {
        let group = self.group.clone();
        metrics::gauge!("meshwork_subscription_state", "source" => self.source, "group" => group, "state" => state)
    }
}

impl Drop for StateGauge {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_well_unless_it_is_stopped_or_late_and_a_source_that_is_away_is_no_fault_of_its_own() {
        use SubscriptionState::{Connecting, Retrying, Running, Stopped};
        let late = Some(MAX_UNREAD_AGE + Duration::from_secs(1));
        let in_time = Some(MAX_UNREAD_AGE);
        let away = || Connecting(Some("away".into()));
        let cases = [
            (Running, None, ""),
            (Running, in_time, ""),
            (Running, late, "an event has been unread for 31 s"),
            (away(), late, ""),
            (Retrying("the table is gone".into()), in_time, ""),
            (Retrying("the table is gone".into()), late, "an event has been unread for 31 s: the table is gone"),
            (Stopped("poison".into()), None, "poison"),
        ];
        for (state, oldest, problem) in cases {
            let snapshot = Snapshot { state, ..Progress::default().snapshot() };
            assert_eq!(condition(&snapshot, oldest).err().unwrap_or_default(), problem, "{snapshot:?} {oldest:?}");
        }
    }
}
