//! The source of a subscription: which events it reads, and how they become inputs.

use meshwork::contract::meshwork::event::v1::{Event, GroupLifetime};

use crate::writer::Decider;

/// Names what a subscription reads, and how it decodes that.
pub struct Source<D: Decider> {
    /// The service whose events are read.
    pub name: &'static str,
    /// The group that reads: the consumer's service name, or `<service>/<view_id>` for a private view. Each group of a database has
    /// its own cursors, and so reads every event.
    pub group: String,
    /// How long the source remembers the group.
    pub lifetime: GroupLifetime,
    /// Wanted event types (full message names). Empty: all.
    pub types: Vec<String>,
    /// Turns an event into an input.
    pub decode: fn(&Event) -> Result<D::Input, MalformedEvent>,
}

/// An event that the consumer does not understand. It stops the event's partition.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MalformedEvent {
    /// What is wrong with the event.
    pub reason: String,
}

impl MalformedEvent {
    /// Creates the error for an event that is malformed for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}
