//! What this service hears of credit: which events it reads, and what each means here.

use meshwork::{
    contract::{
        meshwork::event::v1::{Event, GroupLifetime},
        shop::{
            customer::v1::{CreditRefused, CreditReserved, RefusalReason},
            order::v1::RejectionReason,
        },
    },
    event::{MalformedEvent, Source},
};
use meshwork_shop::{decode_event, event_id, now_ms};
use prost::Name as _;

use crate::{SERVICE, decider::Orders, domain::Input};

/// The customer service's events that settle orders.
pub(crate) fn credit() -> Source<Orders> {
    Source {
        name: "customer",
        group: SERVICE.into(),
        lifetime: GroupLifetime::Durable,
        types: vec![CreditReserved::full_name(), CreditRefused::full_name()],
        decode: input,
    }
}

fn input(event: &Event) -> Result<Input, MalformedEvent> {
    let now_ms = now_ms();
    if event.r#type == CreditReserved::full_name() {
        let reserved: CreditReserved = decode_event(event)?;
        return Ok(Input::CreditReserved { order_id: event_id(&reserved.order_id)?, now_ms });
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
