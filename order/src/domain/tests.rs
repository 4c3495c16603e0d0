//! The saga's steps: each once, repeated, too late, and in any mix.

use meshwork_events::{
    outbox::NewEvent,
    writer::{Decider as _, Outcome, Rows},
};
use meshwork_shop::{
    Amount, Currency, RequestKey,
    contract::shop::order::v1::{OrderRejected, RejectionReason},
};
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use super::{Input, Key, Order, Orders, Refusal, Reply, Row, State};

const ORDER: Uuid = Uuid::from_u128(1);
const CUSTOMER: Uuid = Uuid::from_u128(2);
const DEADLINE_MS: i64 = 100;
const REFUSED: State = State::Rejected(RejectionReason::InsufficientCredit);
const TIMED_OUT: State = State::Rejected(RejectionReason::TimedOut);

fn create(order_id: Uuid, request: Option<RequestKey>) -> Input {
    let usd = Currency::from_code("USD").expect("known");
    let total = Amount::new(1234, usd).expect("not negative");
    Input::CreateOrder { order_id, customer_id: CUSTOMER, total, request, now_ms: 1, deadline_ms: DEADLINE_MS }
}

const CANCEL: Input = Input::CancelOrder { order_id: ORDER, now_ms: 10 };
const RESERVED: Input = Input::CreditReserved { order_id: ORDER, now_ms: 10 };
const RELEASED: Input = Input::CreditReleased { order_id: ORDER, now_ms: 10 };
const CREDIT_REFUSED: Input =
    Input::CreditRefused { order_id: ORDER, reason: RejectionReason::InsufficientCredit, now_ms: 10 };
const DEADLINE: Input = Input::TimeOut { order_id: ORDER, now_ms: DEADLINE_MS, overdue_ms: DEADLINE_MS };

/// Rows that inputs are applied to, as the writer does it.
#[derive(Default)]
struct Saga(Rows<Key, Row>);

impl Saga {
    fn with_a_pending_order() -> Self {
        let mut orders = Self::default();
        orders.apply(&create(ORDER, None)).expect("created");
        orders
    }

    fn apply(&mut self, input: &Input) -> Result<(Vec<NewEvent>, Reply), Refusal> {
        let Outcome { rows, events, reply } = Orders::default().decide(&self.0, input)?;
        for (key, row) in rows {
            self.0.insert(key, row);
        }
        Ok((events, reply))
    }

    fn order(&self) -> Order {
        match self.0.get(&Key::Order(ORDER)) {
            Some(Row::Order(order)) => *order,
            other => panic!("no order: {other:?}"),
        }
    }
}

fn kinds(events: &[NewEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.rsplit('.').next().expect("a name")).collect()
}

#[test]
fn a_pending_order_goes_where_the_first_input_sends_it() {
    for (input, state, event) in [
        (RESERVED, State::Approved, "OrderApproved"),
        (CREDIT_REFUSED, REFUSED, "OrderRejected"),
        (DEADLINE, TIMED_OUT, "OrderRejected"),
        (CANCEL, State::Cancelled, "OrderCancelled"),
        (RELEASED, State::Cancelled, "OrderCancelled"),
    ] {
        let mut orders = Saga::with_a_pending_order();
        let (events, _) = orders.apply(&input).expect("accepted");
        assert_eq!((orders.order().state, orders.order().version), (state, 2));
        assert_eq!(kinds(&events), [event]);
        assert_eq!((events[0].partition_key, events[0].aggregate_version), (CUSTOMER.into_bytes(), 2));
    }
}

#[test]
fn an_approved_order_ends_when_it_is_cancelled_or_its_credit_is_gone() {
    for (input, state, event) in [
        (CANCEL, State::Cancelled, "OrderCancelled"),
        (RELEASED, State::Cancelled, "OrderCancelled"),
        (CREDIT_REFUSED, REFUSED, "OrderRejected"),
    ] {
        let mut orders = Saga::with_a_pending_order();
        orders.apply(&RESERVED).expect("approved");
        for ignored in [RESERVED, DEADLINE] {
            assert_eq!(kinds(&orders.apply(&ignored).expect("ignored").0), [""; 0], "{ignored:?}");
        }
        assert_eq!(kinds(&orders.apply(&input).expect("ended").0), [event]);
        assert_eq!(orders.order().state, state);
    }
}

#[test]
fn credit_that_comes_after_the_end_changes_nothing() {
    for (end, state) in [(CANCEL, State::Cancelled), (DEADLINE, TIMED_OUT)] {
        let mut orders = Saga::with_a_pending_order();
        orders.apply(&end).expect("ended");
        for input in [RESERVED, RELEASED, CREDIT_REFUSED, DEADLINE] {
            assert_eq!(kinds(&orders.apply(&input).expect("ignored").0), [""; 0], "{input:?}");
        }
        assert_eq!(orders.order().state, state);
    }
}

#[test]
fn cancelling_is_repeatable_but_not_after_a_rejection() {
    let mut orders = Saga::with_a_pending_order();
    orders.apply(&CANCEL).expect("cancelled");
    assert_eq!(orders.apply(&CANCEL), Ok((vec![], Reply::Order(orders.order()))));

    let mut orders = Saga::with_a_pending_order();
    orders.apply(&CREDIT_REFUSED).expect("rejected");
    assert_eq!(orders.apply(&CANCEL), Err(Refusal::OrderRejected(ORDER)));
    assert_eq!(Saga::default().apply(&CANCEL), Err(Refusal::UnknownOrder(ORDER)));
}

#[test]
fn the_deadline_counts_from_its_own_time() {
    let mut orders = Saga::with_a_pending_order();
    let early = Input::TimeOut { order_id: ORDER, now_ms: DEADLINE_MS, overdue_ms: DEADLINE_MS - 1 };
    assert_eq!(kinds(&orders.apply(&early).expect("ignored").0), [""; 0]);
    let (events, _) = orders.apply(&DEADLINE).expect("timed out");
    let rejected = OrderRejected::decode(events[0].payload.as_slice()).expect("a rejection");
    assert_eq!(rejected.reason(), RejectionReason::TimedOut);
}

#[test]
fn events_about_an_unknown_order_change_nothing() {
    for input in [RESERVED, RELEASED, CREDIT_REFUSED, DEADLINE] {
        assert_eq!(Saga::default().apply(&input), Ok((vec![], Reply::Settled)));
    }
}

#[test]
fn a_request_id_returns_its_order_and_refuses_another_body() {
    let mut orders = Saga::default();
    let request = |body_hash| Some(RequestKey { id: Uuid::from_u128(9), body_hash });
    let other = Uuid::from_u128(3);
    orders.apply(&create(ORDER, request(1))).expect("created");
    assert_eq!(orders.apply(&create(other, request(1))), Ok((vec![], Reply::Existing(ORDER))));
    assert_eq!(orders.apply(&create(other, request(2))), Err(Refusal::RequestIdReused(Uuid::from_u128(9))));
}

proptest! {
    #[test]
    fn any_mix_of_inputs_follows_the_diagram_and_tells_every_step_once(
        inputs in prop::collection::vec(
            prop::sample::select(vec![RESERVED, RELEASED, CREDIT_REFUSED, DEADLINE, CANCEL]), 0..20),
    ) {
        let mut orders = Saga::with_a_pending_order();
        let mut told = 1;
        for input in &inputs {
            let before = orders.order();
            let events = orders.apply(input).map_or(Vec::new(), |(events, _)| events);
            let after = orders.order();
            told += u64::try_from(events.len()).expect("few");
            prop_assert_eq!(after.version, told);
            prop_assert_eq!(before.state == after.state, events.is_empty());
            let follows = match (before.state, after.state) {
                (State::Pending, _) => after.state.is_terminal(),
                (State::Approved, after) => after.is_terminal(),
                (before, after) => before == after,
            };
            prop_assert!(follows, "{:?} -> {:?}", before.state, after.state);
        }
    }
}
