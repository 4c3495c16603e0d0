//! The interface to the writer: decides one input against the rows that it touches, and loads and saves these rows.

use meshwork_events::{
    store::{StoreError, Transaction},
    writer::{Decider, Outcome, Rows},
};
use meshwork_shop::{Amount, RequestKey, contract::shop::customer::v1::RefusalReason};
use uuid::Uuid;

use super::{Customer, Customers, Input, Key, Refusal, Reply, Reservation, ReservationState, Row, events};
use crate::store;

/// What an accepted input leads to, or why it was refused.
type Decision = Result<Outcome<Customers>, Refusal>;

impl Decider for Customers {
    type Key = Key;
    type Row = Row;
    type Input = Input;
    type Reply = Reply;
    type Refusal = Refusal;

    fn keys(&self, input: &Input, keys: &mut Vec<Key>) {
        match input {
            Input::CreateCustomer { request, .. } => keys.extend(request.map(|request| Key::Request(request.id))),
            Input::UpdateCreditLimit { id, .. } => keys.push(Key::Customer(*id)),
            Input::OrderCreated { order_id, customer_id, .. } | Input::OrderEnded { order_id, customer_id, .. } => {
                keys.extend([Key::Customer(*customer_id), Key::Reservation(*order_id)]);
            }
        }
    }

    fn decide(&self, rows: &Rows<Key, Row>, input: &Input) -> Decision {
        match input {
            Input::CreateCustomer { id, name, limit, request, now_ms } => {
                create(rows, *id, name, *limit, *request, *now_ms)
            }
            Input::UpdateCreditLimit { id, limit, etag, now_ms } => update_limit(rows, *id, *limit, etag, *now_ms),
            Input::OrderCreated { order_id, customer_id, total, now_ms } => {
                reserve(rows, *order_id, *customer_id, *total, *now_ms)
            }
            Input::OrderEnded { order_id, customer_id, now_ms } => release(rows, *order_id, *customer_id, *now_ms),
        }
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
        store::load(tx, keys).await
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
        store::save(tx, changed).await
    }
}

fn create(
    rows: &Rows<Key, Row>,
    id: Uuid,
    name: &str,
    limit: Amount,
    request: Option<RequestKey>,
    now_ms: i64,
) -> Decision {
    if let Some(RequestKey { id: request_id, body_hash }) = request
        && let Some(Row::Request { customer_id, body_hash: first }) = rows.get(&Key::Request(request_id))
    {
        let same = *first == body_hash;
        return if same { unchanged(Reply::Existing(*customer_id)) } else { Err(Refusal::RequestIdReused(request_id)) };
    }
    let customer = Customer {
        id,
        name: name.to_owned(),
        limit,
        reserved: Amount::zero(limit.currency()),
        version: 1,
        request,
        create_time_ms: now_ms,
        update_time_ms: now_ms,
    };
    let event = events::customer_created(&customer);
    let mut rows = vec![customer_row(customer.clone())];
    // For repeats in the same batch; the store keeps it as columns of the customer.
    rows.extend(request.map(|r| (Key::Request(r.id), Row::Request { customer_id: id, body_hash: r.body_hash })));
    Ok(Outcome { rows, events: vec![event], reply: Reply::Customer(Box::new(customer)) })
}

fn update_limit(rows: &Rows<Key, Row>, id: Uuid, limit: Amount, etag: &str, now_ms: i64) -> Decision {
    let customer = customer(rows, id).ok_or(Refusal::UnknownCustomer(id))?;
    if !etag.is_empty() && etag != customer.etag() {
        return Err(Refusal::EtagMismatch(customer.etag()));
    }
    let currency = customer.limit.currency();
    if limit.currency() != currency {
        return Err(Refusal::CurrencyMismatch(currency.code()));
    }
    limit.checked_sub(customer.reserved).ok_or(Refusal::CreditInUse)?;
    if limit == customer.limit {
        return unchanged(Reply::Customer(Box::new(customer.clone())));
    }
    let customer = Customer { limit, ..customer.changed(now_ms) };
    let event = events::credit_limit_updated(&customer);
    Ok(Outcome {
        rows: vec![customer_row(customer.clone())],
        events: vec![event],
        reply: Reply::Customer(Box::new(customer)),
    })
}

fn reserve(rows: &Rows<Key, Row>, order_id: Uuid, customer_id: Uuid, total: Amount, now_ms: i64) -> Decision {
    if reservation(rows, order_id).is_some() {
        return unchanged(Reply::Settled);
    }
    match try_reserve(customer(rows, customer_id), total) {
        Ok((customer, reserved)) => {
            let customer = Customer { reserved, ..customer.changed(now_ms) };
            let event = events::credit_reserved(&customer, order_id, total, now_ms);
            let state = ReservationState::Reserved;
            let row = reservation_row(Reservation { order_id, customer_id, state, amount_minor: total.minor() });
            Ok(Outcome { rows: vec![customer_row(customer), row], events: vec![event], reply: Reply::Settled })
        }
        Err(reason) => {
            let event = events::credit_refused(customer_id, order_id, reason, now_ms);
            let state = ReservationState::Refused;
            let row = reservation_row(Reservation { order_id, customer_id, state, amount_minor: 0 });
            Ok(Outcome { rows: vec![row], events: vec![event], reply: Reply::Settled })
        }
    }
}

/// The customer and what it would have reserved with `total` more, or why that cannot be.
fn try_reserve(customer: Option<&Customer>, total: Amount) -> Result<(&Customer, Amount), RefusalReason> {
    let customer = customer.ok_or(RefusalReason::UnknownCustomer)?;
    if customer.limit.currency() != total.currency() {
        return Err(RefusalReason::CurrencyMismatch);
    }
    customer.available().checked_sub(total).ok_or(RefusalReason::InsufficientCredit)?;
    let reserved = customer.reserved.checked_add(total).expect("not more than the limit");
    Ok((customer, reserved))
}

fn release(rows: &Rows<Key, Row>, order_id: Uuid, customer_id: Uuid, now_ms: i64) -> Decision {
    let state = ReservationState::Released;
    let Some(reservation) = reservation(rows, order_id) else {
        let early = Reservation { order_id, customer_id, state, amount_minor: 0 };
        return Ok(Outcome { rows: vec![reservation_row(early)], events: Vec::new(), reply: Reply::Settled });
    };
    match reservation.state {
        ReservationState::Refused | ReservationState::Released => unchanged(Reply::Settled),
        ReservationState::Reserved => {
            let inconsistent = || Refusal::Inconsistent(order_id);
            let customer = customer(rows, reservation.customer_id).ok_or_else(inconsistent)?;
            let amount =
                Amount::new(reservation.amount_minor, customer.limit.currency()).map_err(|_| inconsistent())?;
            let reserved = customer.reserved.checked_sub(amount).ok_or_else(inconsistent)?;
            let customer = Customer { reserved, ..customer.changed(now_ms) };
            let event = events::credit_released(&customer, order_id, amount, now_ms);
            let row = reservation_row(Reservation { state, ..*reservation });
            Ok(Outcome { rows: vec![customer_row(customer), row], events: vec![event], reply: Reply::Settled })
        }
    }
}

fn unchanged(reply: Reply) -> Decision {
    Ok(Outcome::unchanged(reply))
}

fn customer(rows: &Rows<Key, Row>, id: Uuid) -> Option<&Customer> {
    match rows.get(&Key::Customer(id))? {
        Row::Customer(customer) => Some(customer),
        Row::Reservation(_) | Row::Request { .. } => None,
    }
}

fn reservation(rows: &Rows<Key, Row>, order_id: Uuid) -> Option<&Reservation> {
    match rows.get(&Key::Reservation(order_id))? {
        Row::Reservation(reservation) => Some(reservation),
        Row::Customer(_) | Row::Request { .. } => None,
    }
}

fn customer_row(customer: Customer) -> (Key, Row) {
    (Key::Customer(customer.id), Row::Customer(customer))
}

fn reservation_row(reservation: Reservation) -> (Key, Row) {
    (Key::Reservation(reservation.order_id), Row::Reservation(reservation))
}
