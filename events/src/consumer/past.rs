//! Checks whether a position token belongs to the past that a subscription has read.
//!
//! A token names a position and the event that stood there. After the source was restored from a backup, another event may be
//! there: then what the token's holder has seen is lost, and an answer from that position on would be "not found" for what was
//! acknowledged. Recent events are remembered; about older ones this asks the source.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use meshwork::{
    contract::meshwork::event::v1::{GetPositionRequest, LogPosition, event_service_client::EventServiceClient},
    rpc::Transport,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::Progress;
use crate::outbox::{Position, PositionToken, is_expired};

/// How long the source is waited for: it answers from memory, or with one look at an index.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Checks tokens against the past that a subscription has read. Cheap to clone.
#[derive(Clone)]
pub struct Past {
    progress: Progress,
    ask: Arc<dyn Fn(Position) -> BoxFuture<'static, Result<LogPosition, Status>> + Send + Sync>,
}

/// The event at a position of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// An event.
    Event {
        /// The log's store.
        store_id: String,
        /// The event; empty before the first.
        event_id: String,
    },
    /// No event yet.
    Beyond,
    /// An event that is no longer there.
    Pruned,
}

/// Why a token cannot be compared with what was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThePast {
    /// Its event is not there: the source has lost it.
    #[error("the source has lost the event at this position")]
    Lost,
    /// What was read is itself not the source's past: the subscription is stopped.
    #[error("the source has lost events that were read from it")]
    Diverged,
    /// The source, which alone can tell, does not answer.
    #[error("the source cannot be asked: {0}")]
    Unknown(String),
}

impl Past {
    /// The past that `progress` has come through, of the log that `client` asks.
    pub(super) fn new<T: Transport>(progress: Progress, client: &EventServiceClient<T>) -> Self {
        let client = client.clone();
        let ask = move |Position { partition, position }| -> BoxFuture<'static, Result<LogPosition, Status>> {
            let mut client = client.clone();
            Box::pin(
                async move { Ok(client.get_position(GetPositionRequest { partition, position }).await?.into_inner()) },
            )
        };
        Self { progress, ask: Arc::new(ask) }
    }

    /// The progress of the subscription.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The event at a position of the source's log.
    pub(super) async fn look(&self, at: Position) -> Result<There, Status> {
        let answer = timeout(ANSWER_LIMIT, (self.ask)(at)).await;
        match answer.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))
        }) {
            Ok(LogPosition { store_id, event_id, .. }) => Ok(There::Event { store_id, event_id }),
            Err(status) if is_expired(&status) => Ok(There::Pruned),
            Err(status) if status.code() == Code::OutOfRange => Ok(There::Beyond),
            Err(status) => Err(status),
        }
    }

    /// Whether the event that a token names stands where the token says, in what was read. Tokens of Meshwork 0.1 name no
    /// event, and are accepted.
    ///
    /// # Errors
    /// [`NotThePast`].
    pub async fn check(&self, token: &PositionToken) -> Result<(), NotThePast> {
        if self.progress.snapshot().diverged {
            return Err(NotThePast::Diverged);
        }
        let at = Position { partition: token.partition, position: token.position };
        if token.event_id.is_empty() {
            return Ok(());
        }
        let read = self.progress.recent(at).and_then(|point| point.event_id).map(|event_id| event_id.to_string());
        if read.as_ref() == Some(&token.event_id) {
            return Ok(());
        }
        match self.look(at).await {
            Ok(There::Event { event_id, .. }) if event_id == token.event_id => match read {
                // The token is right, and what was read is not: the subscription has yet to notice.
                Some(_) => Err(NotThePast::Diverged),
                None if self.progress.is_confirmed() => Ok(()),
                None => Err(NotThePast::Unknown("the subscription is being opened".to_owned())),
            },
            // Also where it cannot be checked any more.
            Ok(There::Event { .. } | There::Beyond | There::Pruned) => Err(NotThePast::Lost),
            // Meshwork 0.1.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => Err(NotThePast::Unknown(status.message().to_owned())),
        }
    }
}
