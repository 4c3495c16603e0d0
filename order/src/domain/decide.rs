//! The interface to the writer: decides one input against the rows that it touches, and loads and saves these rows.

use meshwork_events::{
    store::{StoreError, Transaction},
    writer::{Decider, Outcome, Rows},
};
use meshwork_shop::{RequestKey, contract::shop::order::v1::RejectionReason};
use uuid::Uuid;

use super::{Input, Key, Order, Orders, Refusal, Reply, Row, State, events};
use crate::store;

/// What an accepted input leads to, or why it was refused.
type Decision = Result<Outcome<Orders>, Refusal>;

impl Decider for Orders {
    type Key = Key;
    type Row = Row;
    type Input = Input;
    type Reply = Reply;
    type Refusal = Refusal;

    fn keys(&self, input: &Input, keys: &mut Vec<Key>) {
        match input {
            Input::CreateOrder { request, .. } => keys.extend(request.map(|request| Key::Request(request.id))),
            Input::CancelOrder { order_id, .. }
            | Input::TimeOut { order_id, .. }
            | Input::CreditReserved { order_id, .. }
            | Input::CreditReleased { order_id, .. }
            | Input::CreditRefused { order_id, .. } => keys.push(Key::Order(*order_id)),
        }
    }

    fn decide(&self, rows: &Rows<Key, Row>, input: &Input) -> Decision {
        match *input {
            Input::CreateOrder { order_id: id, customer_id, total, request, now_ms, deadline_ms } => {
                let state = State::Pending;
                let (create_time_ms, update_time_ms) = (now_ms, now_ms);
                let order = Order {
                    id,
                    customer_id,
                    total,
                    state,
                    version: 1,
                    request,
                    create_time_ms,
                    update_time_ms,
                    deadline_ms,
                };
                create(rows, order)
            }
            Input::CancelOrder { order_id, now_ms } => cancel(rows, order_id, now_ms),
            Input::TimeOut { order_id, now_ms, overdue_ms } => {
                let overdue = waiting(order(rows, order_id)).filter(|order| order.deadline_ms <= overdue_ms);
                move_to(overdue, State::Rejected(RejectionReason::TimedOut), now_ms)
            }
            Input::CreditReserved { order_id, now_ms } => {
                move_to(waiting(order(rows, order_id)), State::Approved, now_ms)
            }
            Input::CreditReleased { order_id, now_ms } => {
                move_to(open(order(rows, order_id)), State::Cancelled, now_ms)
            }
            Input::CreditRefused { order_id, reason, now_ms } => {
                move_to(open(order(rows, order_id)), State::Rejected(reason), now_ms)
            }
        }
    }

    async fn load(&self, tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
        store::load(tx, keys).await
    }

    async fn save(&self, tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
        store::save(tx, changed).await
    }
}

fn create(rows: &Rows<Key, Row>, order: Order) -> Decision {
    if let Some(RequestKey { id: request_id, body_hash }) = order.request
        && let Some(Row::Request { order_id, body_hash: first }) = rows.get(&Key::Request(request_id))
    {
        let same = *first == body_hash;
        return if same { unchanged(Reply::Existing(*order_id)) } else { Err(Refusal::RequestIdReused(request_id)) };
    }
    let mut outcome = put(order);
    // For repeats in the same batch; the store keeps it as columns of the order.
    outcome.rows.extend(
        order.request.map(|r| (Key::Request(r.id), Row::Request { order_id: order.id, body_hash: r.body_hash })),
    );
    Ok(outcome)
}

fn cancel(rows: &Rows<Key, Row>, order_id: Uuid, now_ms: i64) -> Decision {
    let order = order(rows, order_id).ok_or(Refusal::UnknownOrder(order_id))?;
    match order.state {
        State::Pending | State::Approved => Ok(put(order.moved_to(State::Cancelled, now_ms))),
        State::Cancelled => unchanged(Reply::Order(*order)),
        State::Rejected(_) => Err(Refusal::OrderRejected(order_id)),
    }
}

/// The order, if it still waits for credit.
fn waiting(order: Option<&Order>) -> Option<&Order> {
    order.filter(|order| order.state == State::Pending)
}

/// The order, if it waits for credit or has it.
fn open(order: Option<&Order>) -> Option<&Order> {
    order.filter(|order| matches!(order.state, State::Pending | State::Approved))
}

/// Moves an order on, if there is one to be moved.
fn move_to(order: Option<&Order>, state: State, now_ms: i64) -> Decision {
    order.map_or_else(|| unchanged(Reply::Settled), |order| Ok(put(order.moved_to(state, now_ms))))
}

fn put(order: Order) -> Outcome<Orders> {
    Outcome {
        rows: vec![(Key::Order(order.id), Row::Order(order))],
        events: vec![events::event(&order)],
        reply: Reply::Order(order),
    }
}

fn unchanged(reply: Reply) -> Decision {
    Ok(Outcome::unchanged(reply))
}

fn order(rows: &Rows<Key, Row>, id: Uuid) -> Option<&Order> {
    match rows.get(&Key::Order(id))? {
        Row::Order(order) => Some(order),
        Row::Request { .. } => None,
    }
}
