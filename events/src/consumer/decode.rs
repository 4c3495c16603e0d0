//! Decodes events as a consumer reads them: the payload, and the ids in it.

use meshwork::contract::meshwork::event::v1::Event;
use prost::{Message, Name};
use uuid::Uuid;

use super::MalformedEvent;

/// Decodes the payload of an event of `M`'s type.
///
/// # Errors
/// [`MalformedEvent`] if the event is of another type, or its payload does not decode as `M`.
pub fn decode_event<M: Message + Name + Default>(event: &Event) -> Result<M, MalformedEvent> {
    if event.r#type != M::full_name() {
        return Err(MalformedEvent::new(format!("type {} was not asked for", event.r#type)));
    }
    let payload = event.payload.as_ref().ok_or_else(|| MalformedEvent::new("payload is missing"))?;
    M::decode(payload.value.as_slice()).map_err(|error| MalformedEvent::new(format!("payload: {error}")))
}

/// Parses an id in an event.
///
/// # Errors
/// [`MalformedEvent`] if it is not a UUID.
pub fn event_id(text: &str) -> Result<Uuid, MalformedEvent> {
    Uuid::try_parse(text).map_err(|_| MalformedEvent::new(format!("id {text:?} must be a UUID")))
}
