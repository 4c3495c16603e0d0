//! What this service hears of credit: which events it reads, and what each means here.

use meshwork::contract::meshwork::event::v1::{Event, GroupLifetime};
use meshwork_events::consumer::{MalformedEvent, Source, decode_event, event_id};
use meshwork_shop::{
    contract::shop::{
        customer::v1::{CreditRefused, CreditReleased, CreditReserved, RefusalReason},
        order::v1::RejectionReason,
    },
    now_ms,
};
use prost::Name as _;

use crate::{
    SERVICE,
    domain::{Input, Orders},
};

/// The customer service's events that settle orders.
pub(crate) fn credit() -> Source<Orders> {
    Source {
        name: "customer",
        group: SERVICE.into(),
        lifetime: GroupLifetime::Durable,
        types: vec![CreditReserved::full_name(), CreditReleased::full_name(), CreditRefused::full_name()],
        decode: input,
    }
}

fn input(event: &Event) -> Result<Input, MalformedEvent> {
    let now_ms = now_ms();
    if event.r#type == CreditReserved::full_name() {
        let reserved: CreditReserved = decode_event(event)?;
        return Ok(Input::CreditReserved { order_id: event_id(&reserved.order_id)?, now_ms });
    }
    if event.r#type == CreditReleased::full_name() {
        let released: CreditReleased = decode_event(event)?;
        return Ok(Input::CreditReleased { order_id: event_id(&released.order_id)?, now_ms });
    }
    let refused: CreditRefused = decode_event(event)?;
    let reason = match refused.reason() {
        RefusalReason::InsufficientCredit => RejectionReason::InsufficientCredit,
        RefusalReason::UnknownCustomer => RejectionReason::UnknownCustomer,
        RefusalReason::CurrencyMismatch => RejectionReason::CurrencyMismatch,
        RefusalReason::Unspecified => return Err(MalformedEvent::new("credit was refused for an unknown reason")),
    };
    Ok(Input::CreditRefused { order_id: event_id(&refused.order_id)?, reason, now_ms })
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};
    use prost_types::Any;
    use uuid::Uuid;

    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);

    fn event<M: Message + Name>(payload: &M) -> Event {
        let payload = Any { type_url: String::new(), value: payload.encode_to_vec() };
        Event { r#type: M::full_name(), payload: Some(payload), ..Event::default() }
    }

    fn refused(reason: RefusalReason) -> Event {
        event(&CreditRefused { order_id: ORDER.to_string(), reason: reason.into(), ..CreditRefused::default() })
    }

    #[test]
    fn credit_settles_its_order_with_the_same_reason() {
        let reserved = event(&CreditReserved { order_id: ORDER.to_string(), ..CreditReserved::default() });
        let settles = input(&reserved).expect("understood");
        assert!(matches!(settles, Input::CreditReserved { order_id: ORDER, .. }));

        let released = event(&CreditReleased { order_id: ORDER.to_string(), ..CreditReleased::default() });
        let ends = input(&released).expect("understood");
        assert!(matches!(ends, Input::CreditReleased { order_id: ORDER, .. }));

        for (given, expected) in [
            (RefusalReason::InsufficientCredit, RejectionReason::InsufficientCredit),
            (RefusalReason::UnknownCustomer, RejectionReason::UnknownCustomer),
            (RefusalReason::CurrencyMismatch, RejectionReason::CurrencyMismatch),
        ] {
            let settles = input(&refused(given)).expect("understood");
            assert!(matches!(settles, Input::CreditRefused { order_id: ORDER, reason, .. } if reason == expected));
        }
    }

    #[test]
    fn what_is_not_understood_is_malformed_and_never_guessed() {
        let not_ours = Event { r#type: "shop.customer.v1.CustomerCreated".into(), ..Event::default() };
        for event in [not_ours, refused(RefusalReason::Unspecified), event(&CreditReserved::default())] {
            input(&event).expect_err("malformed");
        }
    }
}
