//! Read your own writes: a query that carries a `position_token` waits until the view has come that far.

use std::time::Duration;

use meshwork::{
    deadline,
    rpc::{Violations, draining_status},
};
use meshwork_events::{
    consumer::{NotThePast, Past, Progress},
    outbox::{Position, PositionToken},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::message::{DOMAIN, RETRY_DELAY};

/// How long a call without a deadline waits.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// The share of the time left that a call with a deadline waits, in percent: the rest is for the answer's way back.
const WAIT_PERCENT: u32 = 90;
/// The services whose events the view folds, and how far it has come with each.
pub(crate) struct Sources {
    sources: Vec<(&'static str, Past)>,
    draining: CancellationToken,
}

impl Sources {
    /// Sources by service name. `draining` ends every wait.
    pub(crate) fn new(sources: Vec<(&'static str, Past)>, draining: CancellationToken) -> Self {
        Self { sources, draining }
    }

    /// Every source.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Progress)> {
        self.sources.iter().map(|(name, past)| (*name, past.progress()))
    }

    /// Whether what is in the view is the past of its sources.
    ///
    /// # Errors
    /// UNAVAILABLE/VIEW_DIVERGED with RetryInfo: it is not.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let diverged = self.iter().find(|(_, progress)| progress.snapshot().diverged);
        diverged.map_or(Ok(()), |(name, _)| Err(not_the_past(name, &NotThePast::Diverged)))
    }

    /// Waits until everything up to `token` is in the view.
    ///
    /// # Errors
    /// INVALID_ARGUMENT/UNKNOWN_POSITION: a position of no log that is folded here. FAILED_PRECONDITION/POSITION_LOST: the log has
    /// lost what stood there. UNAVAILABLE with RetryInfo: VIEW_BEHIND, not there by the call's deadline (without one: within
    /// 5 s); VIEW_DIVERGED, what is in the view is not the log's past; POSITION_UNCHECKED, the log cannot be asked. UNAVAILABLE:
    /// this instance drains.
    pub(crate) async fn wait_for(&self, token: &PositionToken) -> Result<(), Status> {
        let source = self.sources.iter().find(|(name, _)| *name == token.source);
        let (name, past) = source.ok_or_else(unknown_position)?;
        let (progress, at) = (past.progress(), Position { partition: token.partition, position: token.position });
        check_store(progress, token)?;
        let limit = deadline::current().map_or(DEFAULT_WAIT, |deadline| deadline.remaining() * WAIT_PERCENT / 100);
        tokio::select! {
            reached = timeout(limit, progress.wait_for(at)) => {
                // The store may have become known only now.
                check_store(progress, token)?;
                match past.check(token).await {
                    // Why it is not reached is of no interest if it never will be.
                    Err(lost @ (NotThePast::Lost | NotThePast::Diverged)) => Err(not_the_past(name, &lost)),
                    checked if reached.is_ok() => checked.map_err(|error| not_the_past(name, &error)),
                    _ => Err(behind(name)),
                }
            }
            () = self.draining.cancelled() => Err(draining_status()),
        }
    }
}

/// The token of a request, or a note that it is malformed. The outer `None`: it is; the inner: there is none.
pub(crate) fn check_position_token(violations: &mut Violations, text: &str) -> Option<Option<PositionToken>> {
    if text.is_empty() {
        return Some(None);
    }
    violations.check("position_token", PositionToken::parse(text)).map(Some)
}

/// A position of another store cannot be waited for: it counts something else.
fn check_store(progress: &Progress, token: &PositionToken) -> Result<(), Status> {
    let store_id = progress.snapshot().store_id;
    if store_id.is_empty() || store_id == token.store_id { Ok(()) } else { Err(unknown_position()) }
}

fn unknown_position() -> Status {
    let description = "is of a log that this view does not read; read without it, or get a new one";
    DOMAIN.invalid_field("UNKNOWN_POSITION", "position_token", description)
}

fn not_the_past(source: &str, error: &NotThePast) -> Status {
    let message = format!("{source}: {error}");
    match error {
        NotThePast::Lost => DOMAIN.error(Code::FailedPrecondition, "POSITION_LOST", message),
        NotThePast::Diverged => DOMAIN.retry_later("VIEW_DIVERGED", message, RETRY_DELAY),
        NotThePast::Unknown(_) => DOMAIN.retry_later("POSITION_UNCHECKED", message, RETRY_DELAY),
    }
}

fn behind(source: &str) -> Status {
    let message = format!("the view has not folded the events of {source} up to the position_token yet");
    DOMAIN.retry_later("VIEW_BEHIND", message, RETRY_DELAY)
}
