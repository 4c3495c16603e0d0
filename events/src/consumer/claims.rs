//! A batch of the stream as work for the writer: what each event means, and which moves of the cursor claim them.
//!
//! Usually a batch is one claim. A batch in which an event was refused is read again event by event, so that the events before
//! the bad one have their effects, and the bad one can be named.

use meshwork::{
    contract::meshwork::event::v1::{Batch, Event},
    trace::TraceContext,
};
use tracing::Span;

use super::{EventName, MalformedEvent, Stuck};
use crate::outbox::{MAX_BATCH_EVENTS, SCHEMA_VERSION};

/// Part of a batch that takes effect as a whole.
pub(super) struct Part<I> {
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) through_event_id: String,
    pub(super) inputs: Vec<I>,
    /// The event, if it is one alone.
    pub(super) event: Option<EventName>,
}

/// Whether a batch is one that a source may send: it moves cursors, so it is checked.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(batch: &Batch) -> Result<(), &'static str> {
    let Batch { partition, after, through, events, through_event_id } = batch;
    if events.len() > MAX_BATCH_EVENTS {
        return Err("of more than 512 events");
    }
    if after >= through || i64::try_from(*through).is_err() {
        return Err("that leads nowhere");
    }
    let mut last = *after;
    for event in events {
        if event.partition != *partition || event.position <= last || event.position > *through {
            return Err("with an event that is out of order");
        }
        last = event.position;
    }
    match events.last() {
        // Sources of 0.1 do not say the event at the end.
        Some(end) if end.position == *through && ![&end.event_id, ""].contains(&&**through_event_id) => {
            Err("that names another event at its end")
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether an event's meaning is one that this program knows.
fn known(event: &Event) -> Result<(), MalformedEvent> {
    if event.schema_version <= SCHEMA_VERSION {
        return Ok(());
    }
    let (later, known) = (event.schema_version, SCHEMA_VERSION);
    Err(MalformedEvent::new(format!("its schema_version is {later}, and this program knows {known}")))
}

/// The parts of a batch, in order, and the event behind them that cannot be understood, if there is one.
pub(super) fn parts<I>(
    batch: &Batch,
    one_by_one: bool,
    mut decode: impl FnMut(&Event) -> Result<I, MalformedEvent>,
) -> (Vec<Part<I>>, Option<Stuck>) {
    let mut parts: Vec<Part<I>> = Vec::new();
    let mut at = batch.after;
    for event in &batch.events {
        let input = match known(event).and_then(|()| decode(event)) {
            Ok(input) => input,
            Err(malformed) => return (parts, Some(stuck(event, malformed.reason))),
        };
        match parts.last_mut().filter(|_| !one_by_one) {
            Some(part) => {
                part.inputs.push(input);
                part.event = None;
                part.through = event.position;
                part.through_event_id.clone_from(&event.event_id);
            }
            None => parts.push(Part {
                after: at,
                through: event.position,
                through_event_id: event.event_id.clone(),
                inputs: vec![input],
                event: Some(event.into()),
            }),
        }
        at = event.position;
    }
    let (through, through_event_id) = (batch.through, batch.through_event_id.clone());
    match parts.last_mut().filter(|part| !one_by_one || part.through == through) {
        // Those that were not wanted go with the last that was.
        Some(part) => (part.through, part.through_event_id) = (through, through_event_id),
        None => parts.push(Part { after: at, through, through_event_id, inputs: Vec::new(), event: None }),
    }
    (parts, None)
}

/// The folding of an event, as part of the trace that the event belongs to.
pub(super) fn span(event: &Event) -> Span {
    let span = tracing::debug_span!(
        "consume",
        otel.name = event.r#type,
        otel.kind = "consumer",
        event_id = event.event_id,
        partition = event.partition,
        position = event.position
    );
    if !span.is_disabled()
        && let Ok(parent) = event.trace_parent.parse::<TraceContext>()
    {
        parent.adopt(&span);
    }
    span
}

fn stuck(event: &Event, reason: String) -> Stuck {
    Stuck { event: Some(event.into()), position: event.position, reason, poison: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events at 3, 4 and 6 of (2, 7]; that of `bad` cannot be understood.
    fn parts_of(one_by_one: bool, bad: u64) -> (Vec<(u64, u64, String, Vec<u64>)>, Option<u64>) {
        let event = |position: u64| Event { position, event_id: format!("e{position}"), ..Event::default() };
        let events = [3, 4, 6].map(event).to_vec();
        let batch = Batch { after: 2, through: 7, events, through_event_id: "e7".into(), ..Batch::default() };
        let decode = |event: &Event| match event.position {
            position if position == bad => Err(MalformedEvent::new("bad")),
            position => Ok(position),
        };
        let (parts, stuck) = parts(&batch, one_by_one, decode);
        let part = |part: Part<u64>| (part.after, part.through, part.through_event_id, part.inputs);
        (parts.into_iter().map(part).collect(), stuck.map(|stuck| stuck.position))
    }

    #[test]
    fn a_batch_is_one_claim_and_where_something_was_refused_one_for_each_event() {
        assert_eq!(parts_of(false, 0), (vec![(2, 7, "e7".into(), vec![3, 4, 6])], None));
        let one_by_one = [(2, 3, "e3", vec![3]), (3, 4, "e4", vec![4]), (4, 6, "e6", vec![6]), (6, 7, "e7", vec![])];
        let one_by_one = one_by_one.map(|(after, through, id, inputs)| (after, through, id.to_owned(), inputs));
        assert_eq!(parts_of(true, 0), (one_by_one.to_vec(), None));
    }

    #[test]
    fn what_stands_before_an_event_that_cannot_be_understood_has_its_effects() {
        assert_eq!(parts_of(false, 6), (vec![(2, 4, "e4".into(), vec![3, 4])], Some(6)));
        assert_eq!(parts_of(true, 4), (vec![(2, 3, "e3".into(), vec![3])], Some(4)));
        assert_eq!(parts_of(false, 3), (vec![], Some(3)));
    }

    #[test]
    fn a_batch_that_makes_no_sense_is_refused_before_it_moves_anything() {
        let event = |position: u64| Event { position, event_id: format!("e{position}"), ..Event::default() };
        let good = Batch { after: 2, through: 7, events: [3, 7].map(event).to_vec(), ..Batch::default() };
        let with_end = |id: &str| Batch { through_event_id: id.into(), ..good.clone() };
        for good in [good.clone(), with_end("e7"), Batch { events: vec![], ..with_end("e6") }] {
            assert_eq!(check(&good), Ok(()), "{good:?}");
        }
        let of = |positions: &[u64]| Batch { events: positions.iter().copied().map(event).collect(), ..good.clone() };
        let elsewhere = Event { partition: 1, ..event(3) };
        for bad in [
            with_end("e6"),
            of(&[2, 7]),
            of(&[7, 3]),
            of(&[3, 3]),
            of(&[3, 8]),
            Batch { events: vec![elsewhere], ..good.clone() },
            Batch { through: 2, events: vec![], ..good.clone() },
            Batch { through: u64::MAX, ..good.clone() },
            Batch { events: vec![Event::default(); MAX_BATCH_EVENTS + 1], ..good.clone() },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_batch_moves_the_cursor() {
        let batch = Batch { after: 2, through: 7, through_event_id: "e7".into(), ..Batch::default() };
        for one_by_one in [false, true] {
            let (parts, _) = parts(&batch, one_by_one, |_| Ok(()));
            assert_eq!(parts.len(), 1);
            assert_eq!((parts[0].after, parts[0].through, parts[0].inputs.len()), (2, 7, 0));
        }
    }
}
