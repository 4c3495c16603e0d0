//! Classifies failed claims: the fault lies with the event, with the store, or the cursor was moved by another reader.

use meshwork::cause::with_causes;

use super::Stuck;
use crate::{store::StoreError, writer::WriteError};

/// Why a claim was not committed.
pub(super) enum Failure {
    /// The cursor has moved, or is at another position.
    Fenced,
    /// It is about this claim alone.
    Refused { reason: String, poison: bool },
    /// It is about the store, which may be well again soon.
    Store(String),
    /// The writer has ended.
    Closed,
}

impl Failure {
    pub(super) fn of<R: std::error::Error>(error: WriteError<R>) -> Self {
        match error {
            WriteError::Fenced => Self::Fenced,
            WriteError::Refused(refusal) => Self::Refused { reason: refusal.to_string(), poison: true },
            WriteError::Closed => Self::Closed,
            WriteError::Store(error) => match &*error {
                // Also where the commit's outcome is unknown: the cursor says it.
                about if about.is_about_the_store() || matches!(about, StoreError::Conflict(_)) => {
                    Self::Store(with_causes(about))
                }
                StoreError::Panicked => Self::Refused { reason: error.to_string(), poison: true },
                _ => Self::Refused { reason: with_causes(&*error), poison: false },
            },
        }
    }
}

/// The one line that names the thing.
pub(super) fn say(source: &str, group: &str, partition: u32, Stuck { event, position, reason, poison }: &Stuck) {
    let (event_id, event_type, aggregate) = event.as_ref().map_or(("", "", String::new()), |event| {
        let (kind, id) = &event.aggregate;
        (event.event_id.as_str(), event.event_type.as_str(), format!("{kind} {id}"))
    });
    if *poison {
        tracing::error!(
            source,
            group,
            event_id,
            event_type,
            aggregate,
            partition,
            position,
            reason,
            "cannot process an event: its partition is stopped, and retried every 30 s"
        );
    } else {
        tracing::warn!(
            source,
            group,
            event_id,
            event_type,
            aggregate,
            partition,
            position,
            reason,
            "the store rejected an event; retrying"
        );
    }
}
