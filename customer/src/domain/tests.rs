//! The rules one by one, and any mix of inputs against a sequential model of the credit line.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_events::{
    outbox::NewEvent,
    writer::{Decider as _, Outcome, Rows},
};
use meshwork_shop::{
    Amount, Currency, RequestKey,
    contract::shop::customer::v1::{CreditRefused, RefusalReason},
};
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use super::{Customer, Customers, Input, Key, Refusal, Reply, Reservation, ReservationState, Row};

const ALICE: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);
const NOBODY: Uuid = Uuid::from_u128(3);

fn amount(minor: i64, currency: &str) -> Amount {
    Amount::new(minor, Currency::from_code(currency).expect("known")).expect("not negative")
}

fn usd(minor: i64) -> Amount {
    amount(minor, "USD")
}

fn order(number: u8) -> Uuid {
    Uuid::from_u128(0x100 + u128::from(number))
}

/// Rows that inputs are applied to, as the writer does it.
#[derive(Default)]
struct Credit(Rows<Key, Row>);

impl Credit {
    fn with_alice(limit: Amount) -> Self {
        let mut credit = Self::default();
        credit.create(ALICE, limit, None).expect("created");
        credit
    }

    fn apply(&mut self, input: &Input) -> Result<(Vec<NewEvent>, Reply), Refusal> {
        let Outcome { rows, events, reply } = Customers.decide(&self.0, input)?;
        for (key, row) in rows {
            self.0.insert(key, row);
        }
        Ok((events, reply))
    }

    fn create(
        &mut self,
        id: Uuid,
        limit: Amount,
        request: Option<RequestKey>,
    ) -> Result<(Vec<NewEvent>, Reply), Refusal> {
        self.apply(&Input::CreateCustomer { id, name: "Alice".into(), limit, request, now_ms: 1 })
    }

    fn update(&mut self, limit: Amount, etag: &str) -> Result<(Vec<NewEvent>, Reply), Refusal> {
        self.apply(&Input::UpdateCreditLimit { id: ALICE, limit, etag: etag.into(), now_ms: 2 })
    }

    /// The events that followed from an order's creation.
    fn order_created(&mut self, order_id: Uuid, customer_id: Uuid, total: Amount) -> Vec<NewEvent> {
        self.apply(&Input::OrderCreated { order_id, customer_id, total, now_ms: 3 }).expect("settled").0
    }

    /// The events that followed from an order's end.
    fn order_ended(&mut self, order_id: Uuid, customer_id: Uuid) -> Vec<NewEvent> {
        self.apply(&Input::OrderEnded { order_id, customer_id, now_ms: 4 }).expect("settled").0
    }

    fn customer(&self, id: Uuid) -> &Customer {
        match self.0.get(&Key::Customer(id)) {
            Some(Row::Customer(customer)) => customer,
            other => panic!("no customer {id}: {other:?}"),
        }
    }

    fn reservation(&self, order_id: Uuid) -> Option<Reservation> {
        match self.0.get(&Key::Reservation(order_id)) {
            Some(Row::Reservation(reservation)) => Some(*reservation),
            _ => None,
        }
    }
}

fn kinds(events: &[NewEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.rsplit('.').next().expect("a name")).collect()
}

#[test]
fn credit_is_reserved_up_to_the_limit_and_refused_beyond_it() {
    let mut credit = Credit::with_alice(usd(1500));
    assert_eq!(kinds(&credit.order_created(order(1), ALICE, usd(1234))), ["CreditReserved"]);
    assert_eq!(credit.customer(ALICE).available(), usd(266));
    assert_eq!(kinds(&credit.order_created(order(2), ALICE, usd(267))), ["CreditRefused"]);
    assert_eq!(kinds(&credit.order_created(order(3), ALICE, usd(266))), ["CreditReserved"]);
    assert_eq!(credit.customer(ALICE).available(), usd(0));
}

#[test]
fn a_refusal_says_why() {
    let mut credit = Credit::with_alice(usd(1500));
    let mut reason = |customer, total| {
        let events = credit.order_created(Uuid::now_v7(), customer, total);
        CreditRefused::decode(events[0].payload.as_slice()).expect("a refusal").reason()
    };
    assert_eq!(reason(ALICE, usd(i64::MAX)), RefusalReason::InsufficientCredit);
    assert_eq!(reason(NOBODY, usd(1)), RefusalReason::UnknownCustomer);
    assert_eq!(reason(ALICE, amount(1, "EUR")), RefusalReason::CurrencyMismatch);
}

#[test]
fn a_refused_order_stays_refused_though_credit_became_free() {
    let mut credit = Credit::with_alice(usd(10));
    credit.order_created(order(1), ALICE, usd(11));
    credit.update(usd(100), "").expect("raised");
    assert_eq!(kinds(&credit.order_created(order(1), ALICE, usd(11))), [""; 0]);
    assert_eq!(kinds(&credit.order_ended(order(1), ALICE)), [""; 0]);
    assert_eq!(credit.customer(ALICE).reserved, usd(0));
}

#[test]
fn a_release_before_its_reservation_wins() {
    let mut credit = Credit::with_alice(usd(10));
    assert_eq!(kinds(&credit.order_ended(order(1), ALICE)), [""; 0]);
    assert_eq!(kinds(&credit.order_created(order(1), ALICE, usd(5))), [""; 0]);
    assert_eq!(credit.customer(ALICE).reserved, usd(0));
    assert_eq!(credit.reservation(order(1)).expect("kept").state, ReservationState::Released);
}

#[test]
fn a_release_frees_the_credit_once() {
    let mut credit = Credit::with_alice(usd(10));
    credit.order_created(order(1), ALICE, usd(6));
    credit.order_created(order(2), ALICE, usd(4));
    assert_eq!(kinds(&credit.order_ended(order(1), ALICE)), ["CreditReleased"]);
    assert_eq!(kinds(&credit.order_ended(order(1), ALICE)), [""; 0]);
    assert_eq!(credit.customer(ALICE).available(), usd(6));
}

#[test]
fn a_request_id_returns_its_customer_and_refuses_another_body() {
    let mut credit = Credit::default();
    let request = |body_hash| Some(RequestKey { id: Uuid::from_u128(9), body_hash });
    credit.create(ALICE, usd(10), request(1)).expect("created");
    assert_eq!(credit.create(BOB, usd(10), request(1)), Ok((vec![], Reply::Existing(ALICE))));
    assert_eq!(credit.create(BOB, usd(11), request(2)), Err(Refusal::RequestIdReused(Uuid::from_u128(9))));
}

#[test]
fn a_limit_changes_only_where_it_may() {
    let mut credit = Credit::with_alice(usd(10));
    credit.order_created(order(1), ALICE, usd(6));
    let etag = credit.customer(ALICE).etag();

    assert_eq!(credit.update(usd(5), ""), Err(Refusal::CreditInUse));
    assert_eq!(credit.update(amount(10, "EUR"), ""), Err(Refusal::CurrencyMismatch("USD")));
    assert_eq!(credit.update(usd(20), "1"), Err(Refusal::EtagMismatch(etag.clone())));
    let unknown = Input::UpdateCreditLimit { id: BOB, limit: usd(1), etag: String::new(), now_ms: 1 };
    assert_eq!(credit.apply(&unknown), Err(Refusal::UnknownCustomer(BOB)));

    let (events, _) = credit.update(usd(6), &etag).expect("just enough");
    assert_eq!(kinds(&events), ["CreditLimitUpdated"]);
    assert_ne!(credit.customer(ALICE).etag(), etag);
    assert_eq!(kinds(&credit.update(usd(6), "").expect("the same again").0), [""; 0]);
}

#[test]
fn all_events_of_a_credit_line_share_its_customers_partition() {
    let mut credit = Credit::default();
    let mut events = credit.create(ALICE, usd(10), None).expect("created").0;
    events.extend(credit.order_created(order(1), ALICE, usd(6)));
    events.extend(credit.order_created(order(2), ALICE, usd(6)));
    events.extend(credit.order_ended(order(1), ALICE));
    events.extend(credit.update(usd(20), "").expect("raised").0);
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event.partition_key == ALICE.into_bytes()));
}

#[derive(Clone, Debug)]
enum Step {
    Created(u8),
    Ended(u8),
    Limit(Uuid, i64),
}

/// What each order wants: fixed by its number, so that a repeat is a repeat.
fn wants(number: u8) -> (Uuid, Amount) {
    let customer = [ALICE, ALICE, ALICE, BOB, NOBODY][usize::from(number % 5)];
    (customer, amount(i64::from(number) * 7 % 23 + 1, if number == 11 { "KRW" } else { "USD" }))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..20_u8).prop_map(Step::Created),
        2 => (0..20_u8).prop_map(Step::Ended),
        1 => (prop_oneof![Just(ALICE), Just(BOB)], 0..60_i64).prop_map(|(who, limit)| Step::Limit(who, limit)),
    ];
    prop::collection::vec(step, 1..120)
}

/// The credit lines, told as simply as can be.
#[derive(Default)]
struct Model {
    limits: BTreeMap<Uuid, i64>,
    settled: BTreeSet<u8>,
    active: BTreeSet<u8>,
}

impl Model {
    fn reserved(&self, customer: Uuid) -> i64 {
        self.active.iter().map(|o| wants(*o)).filter(|(who, _)| *who == customer).map(|(_, total)| total.minor()).sum()
    }

    /// The event that a step leads to, if any.
    fn step(&mut self, step: &Step) -> Option<&'static str> {
        match step {
            Step::Created(order) => {
                let (customer, total) = wants(*order);
                let fits = self.limits.get(&customer).is_some_and(|limit| {
                    total.currency().code() == "USD" && self.reserved(customer) + total.minor() <= *limit
                });
                if !self.settled.insert(*order) {
                    return None;
                }
                if fits {
                    self.active.insert(*order);
                }
                Some(if fits { "CreditReserved" } else { "CreditRefused" })
            }
            Step::Ended(order) => {
                self.settled.insert(*order);
                self.active.remove(order).then_some("CreditReleased")
            }
            Step::Limit(customer, limit) => {
                let changes = *limit >= self.reserved(*customer) && self.limits[customer] != *limit;
                if changes {
                    self.limits.insert(*customer, *limit);
                }
                changes.then_some("CreditLimitUpdated")
            }
        }
    }
}

proptest! {
    #[test]
    fn any_mix_of_new_repeated_late_and_early_inputs_keeps_the_credit_line(steps in steps()) {
        let mut credit = Credit::default();
        let mut model = Model::default();
        for who in [ALICE, BOB] {
            credit.create(who, usd(40), None).expect("created");
            model.limits.insert(who, 40);
        }
        for step in &steps {
            let before = [ALICE, BOB].map(|who| credit.customer(who).version);
            let events = match step {
                Step::Created(number) => {
                    let (customer, total) = wants(*number);
                    credit.order_created(order(*number), customer, total)
                }
                Step::Ended(number) => credit.order_ended(order(*number), wants(*number).0),
                Step::Limit(id, limit) => {
                    let input = Input::UpdateCreditLimit { id: *id, limit: usd(*limit), etag: String::new(), now_ms: 2 };
                    credit.apply(&input).map_or(Vec::new(), |(events, _)| events)
                }
            };
            prop_assert_eq!(kinds(&events), model.step(step).into_iter().collect::<Vec<_>>());
            for (index, who) in [ALICE, BOB].into_iter().enumerate() {
                let customer = credit.customer(who);
                prop_assert_eq!(customer.limit.minor(), model.limits[&who]);
                prop_assert_eq!(customer.reserved.minor(), model.reserved(who));
                prop_assert!(customer.reserved.minor() <= customer.limit.minor());
                prop_assert!(customer.version <= before[index] + 1);
            }
        }
    }
}
