//! Serves the rpcs for operators: they show the state of an instance's subscriptions, and reconcile one whose source has lost
//! events.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use meshwork::{
    contract::meshwork::event::v1::{
        self as proto, ListSubscriptionsRequest, ListSubscriptionsResponse, ReconcileSubscriptionRequest,
        ReconcileSubscriptionResponse, StuckPartition, SubscriptionStatus,
        operations_service_server::{OperationsService, OperationsServiceServer},
    },
    health::Condition,
    rpc::Violations,
};
use tokio::sync::{Notify, watch};
use tonic::{Code, Request, Response, Status};

use super::{Fork, Past, Stuck, Subscription, SubscriptionState, Undo, Undone, group, reconcile::Forks};
use crate::outbox::{DOMAIN, Outbox, unavailable};

/// Shows the subscriptions of one instance, and reconciles them.
pub struct Operations {
    outbox: Outbox,
    subscriptions: Vec<Followed>,
}

/// A subscription, and what its service knows about undoing.
struct Followed {
    source: &'static str,
    group: String,
    past: Past,
    condition: Condition,
    partitions: watch::Receiver<BTreeSet<u32>>,
    again: Arc<Notify>,
    undo: Box<dyn Undo>,
}

impl Operations {
    /// Creates the operations of an instance that reads into this store.
    pub fn new(outbox: Outbox) -> Self {
        Self { outbox, subscriptions: Vec::new() }
    }

    /// Adds a subscription; `undo` is what the service does about events that its source has lost.
    #[must_use]
    pub fn with(mut self, subscription: &Subscription, undo: impl Undo) -> Self {
        self.subscriptions.push(Followed {
            source: subscription.source(),
            group: subscription.group().to_owned(),
            past: subscription.past().clone(),
            condition: subscription.condition(),
            partitions: subscription.watch_partitions(),
            again: subscription.again(),
            undo: Box::new(undo),
        });
        self
    }

    /// The gRPC service.
    pub fn service(self) -> OperationsServiceServer<Self> {
        OperationsServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl OperationsService for Operations {
    async fn list_subscriptions(
        &self,
        _: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let subscriptions = self.subscriptions.iter().map(Followed::status).collect();
        let store_problem = self.outbox.condition().problem().as_deref().unwrap_or_default().to_owned();
        let store_id = self.outbox.store_id().to_owned();
        Ok(Response::new(ListSubscriptionsResponse { store_id, store_problem, subscriptions }))
    }

    async fn reconcile_subscription(
        &self,
        request: Request<ReconcileSubscriptionRequest>,
    ) -> Result<Response<ReconcileSubscriptionResponse>, Status> {
        let ReconcileSubscriptionRequest { source, validate_only, backup_time } = request.into_inner();
        let mut violations = Violations::default();
        let backup_ms = backup_time.and_then(|time| {
            let since_epoch = SystemTime::try_from(time).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok();
            let ms = since_epoch.and_then(|time| u64::try_from(time.as_millis()).ok());
            violations.check("backup_time", ms.ok_or("must be a time since 1970"))
        });
        violations.into_result(DOMAIN)?;
        let followed = self.subscriptions.iter().find(|followed| followed.source == source).ok_or_else(|| {
            let message = format!("this service reads no events of {source:?}");
            DOMAIN.error(Code::NotFound, "UNKNOWN_SOURCE", message)
        })?;
        followed.reconcile(&self.outbox, backup_ms, validate_only).await.map(Response::new)
    }
}

impl Followed {
    fn status(&self) -> SubscriptionStatus {
        let progress = self.past.progress();
        let snapshot = progress.snapshot();
        let (state, own_problem) = match &snapshot.state {
            SubscriptionState::Running => (proto::SubscriptionState::Running, None),
            SubscriptionState::Connecting(problem) => (proto::SubscriptionState::Connecting, problem.clone()),
            SubscriptionState::Retrying(problem) => (proto::SubscriptionState::Retrying, Some(problem.clone())),
            SubscriptionState::Stopped(problem) => (proto::SubscriptionState::Stopped, Some(problem.clone())),
        };
        let unhealthy = self.condition.problem();
        SubscriptionStatus {
            source: self.source.to_owned(),
            group: self.group.clone(),
            state: state.into(),
            problem: own_problem.or_else(|| unhealthy.as_deref().map(str::to_owned)).unwrap_or_default(),
            unhealthy: unhealthy.is_some(),
            diverged: snapshot.diverged,
            lag: snapshot.lag(),
            oldest_unread: progress.oldest_unread().and_then(|age| age.try_into().ok()),
            partitions: self.partitions.borrow().iter().copied().collect(),
            stuck: snapshot.stuck.iter().map(|(partition, stuck)| stuck_message(*partition, stuck)).collect(),
            source_store_id: snapshot.store_id,
        }
    }

    async fn reconcile(
        &self,
        outbox: &Outbox,
        backup_ms: Option<u64>,
        validate_only: bool,
    ) -> Result<ReconcileSubscriptionResponse, Status> {
        let (database, source, group) = (outbox.database(), self.source, &self.group);
        let name = group::cursor_name(database, source, group).await.map_err(|error| unavailable(&error))?;
        let (mut found, lost) = if validate_only {
            let found = Forks::find(database, &name, &self.past, backup_ms).await?;
            let lost = found.lost();
            (found, lost)
        } else {
            Forks::find_and_hold(database, &name, &self.past, backup_ms).await?
        };
        let undone = if found.is_empty() { Undone::default() } else { self.undo.undo(&lost).await? };
        let forks = lost.forks();
        if !validate_only {
            if !found.is_empty() {
                found.move_cursors(database, undone.from_the_beginning).await?;
            }
            for fork in forks {
                let (read, common) = (fork.read.at.position, fork.common.at.position);
                tracing::warn!(
                    source,
                    group,
                    partition = fork.partition(),
                    read,
                    common,
                    "reading again from the last common event"
                );
            }
            for (what, count) in &undone.effects {
                tracing::warn!(source, group, count, what, "undid the effects of lost events");
            }
            self.again.notify_one();
        }
        Ok(ReconcileSubscriptionResponse {
            store_id: outbox.store_id().to_owned(),
            group: group.clone(),
            forks: forks.iter().map(|fork| fork_message(fork, undone.from_the_beginning)).collect(),
            undone: undone
                .effects
                .into_iter()
                .map(|(what, count)| proto::Undone { what: what.to_owned(), count })
                .collect(),
        })
    }
}

fn stuck_message(partition: u32, Stuck { event, position, reason, poison }: &Stuck) -> StuckPartition {
    let message = StuckPartition {
        partition,
        position: *position,
        reason: reason.clone(),
        poison: *poison,
        ..StuckPartition::default()
    };
    match event {
        None => message,
        Some(event) => StuckPartition {
            event_id: event.event_id.clone(),
            event_type: event.event_type.clone(),
            aggregate_type: event.aggregate.0.clone(),
            aggregate_id: event.aggregate.1.clone(),
            ..message
        },
    }
}

fn fork_message(fork: &Fork, from_the_beginning: bool) -> proto::Fork {
    let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let Fork { read, common } = fork;
    proto::Fork {
        partition: fork.partition(),
        read_position: read.at.position,
        read_event_id: text(read.event_id),
        common_position: common.at.position,
        common_event_id: text(common.event_id),
        read_again_after: if from_the_beginning { 0 } else { common.at.position },
    }
}
