//! Both halves of the saga together, without I/O: whatever is repeated, delayed or reordered between them, when all has
//! arrived every order is settled, and exactly the approved orders hold credit.

mod restored;

use std::collections::BTreeSet;

use meshwork::contract::meshwork::event::v1::Event;
use meshwork_customer::domain as credit;
use meshwork_events::{
    consumer::decode_event,
    outbox::NewEvent,
    writer::{Decider as _, Outcome, Rows},
};
use meshwork_order::domain as orders;
use meshwork_shop::{
    Amount, Currency,
    contract::shop::{
        customer::v1::{CreditRefused, CreditReleased, CreditReserved},
        order::v1::{OrderCreated, RejectionReason},
    },
};
use proptest::prelude::*;
use prost::Name as _;
use uuid::Uuid;

const CUSTOMERS: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];
const LIMIT: i64 = 50;
const ORDERS: u8 = 12;
const DEADLINE_MS: i64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Cancel(u8),
    /// The sweeper comes by after the deadline.
    TimeOut(u8),
    /// Any event of the order service so far arrives at the customer service: on time, again, or before others.
    ToCustomer(prop::sample::Index),
    /// And the other way.
    ToOrder(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..ORDERS).prop_map(Step::Create),
        1 => (0..ORDERS).prop_map(Step::Cancel),
        1 => (0..ORDERS).prop_map(Step::TimeOut),
        4 => any::<prop::sample::Index>().prop_map(Step::ToCustomer),
        4 => any::<prop::sample::Index>().prop_map(Step::ToOrder),
    ];
    prop::collection::vec(step, 1..150)
}

fn usd(minor: i64) -> Amount {
    Amount::new(minor, Currency::from_code("USD").expect("known")).expect("not negative")
}

fn order_id(number: u8) -> Uuid {
    Uuid::from_u128(0x100 + u128::from(number))
}

fn customer_of(number: u8) -> Uuid {
    CUSTOMERS[usize::from(number) % CUSTOMERS.len()]
}

fn total_of(number: u8) -> Amount {
    usd(i64::from(number) * 7 % 23 + 1)
}

/// What a service has sent, and which of it has arrived.
#[derive(Default)]
struct Log {
    events: Vec<NewEvent>,
    arrived: Vec<bool>,
}

impl Log {
    fn append(&mut self, events: Vec<NewEvent>) {
        self.events.extend(events);
        self.arrived.resize(self.events.len(), false);
    }

    /// Any event, whether it has arrived before or not.
    fn deliver(&mut self, which: &prop::sample::Index) -> Option<NewEvent> {
        let index = (!self.events.is_empty()).then(|| which.index(self.events.len()))?;
        self.arrived[index] = true;
        Some(self.events[index].clone())
    }

    /// The first event that has not arrived yet.
    fn deliver_next(&mut self) -> Option<NewEvent> {
        let index = self.arrived.iter().position(|arrived| !arrived)?;
        self.arrived[index] = true;
        Some(self.events[index].clone())
    }
}

/// Two services with their rows, and what each has sent.
struct Saga {
    orders: Rows<orders::Key, orders::Row>,
    credit: Rows<credit::Key, credit::Row>,
    order_log: Log,
    credit_log: Log,
    created: BTreeSet<u8>,
}

impl Saga {
    fn new() -> Self {
        let mut saga = Self {
            orders: Rows::default(),
            credit: Rows::default(),
            order_log: Log::default(),
            credit_log: Log::default(),
            created: BTreeSet::new(),
        };
        for id in CUSTOMERS {
            let (name, limit) = ("Alice".to_owned(), usd(LIMIT));
            saga.decide_credit(&credit::Input::CreateCustomer { id, name, limit, request: None, now_ms: 1 });
        }
        saga
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Create(number) => {
                if self.created.insert(*number) {
                    self.decide_order(&orders::Input::CreateOrder {
                        order_id: order_id(*number),
                        customer_id: customer_of(*number),
                        total: total_of(*number),
                        request: None,
                        now_ms: 1,
                        deadline_ms: DEADLINE_MS,
                    });
                }
            }
            Step::Cancel(number) => {
                self.decide_order(&orders::Input::CancelOrder { order_id: order_id(*number), now_ms: 2 });
            }
            Step::TimeOut(number) => {
                self.decide_order(&orders::Input::TimeOut {
                    order_id: order_id(*number),
                    now_ms: DEADLINE_MS,
                    overdue_ms: DEADLINE_MS,
                });
            }
            Step::ToCustomer(which) => {
                if let Some(event) = self.order_log.deliver(which) {
                    self.hear_as_customer(&event);
                }
            }
            Step::ToOrder(which) => {
                if let Some(event) = self.credit_log.deliver(which) {
                    self.hear_as_order(&event);
                }
            }
        }
    }

    /// What has not arrived yet arrives, until nothing new is sent.
    fn settle(&mut self) {
        loop {
            if let Some(event) = self.order_log.deliver_next() {
                self.hear_as_customer(&event);
            } else if let Some(event) = self.credit_log.deliver_next() {
                self.hear_as_order(&event);
            } else {
                return;
            }
        }
    }

    fn hear_as_customer(&mut self, event: &NewEvent) {
        if let Some(input) = credit_input(event) {
            self.decide_credit(&input);
        }
    }

    fn hear_as_order(&mut self, event: &NewEvent) {
        if let Some(input) = order_input(event) {
            self.decide_order(&input);
        }
    }

    fn decide_order(&mut self, input: &orders::Input) {
        // A refused command changes nothing.
        let Ok(Outcome { rows, events, .. }) = orders::Orders::default().decide(&self.orders, input) else { return };
        for (key, row) in rows {
            self.orders.insert(key, row);
        }
        self.order_log.append(events);
    }

    fn decide_credit(&mut self, input: &credit::Input) {
        let decided = credit::Customers.decide(&self.credit, input);
        let Outcome { rows, events, .. } = decided.expect("no event is refused");
        for (key, row) in rows {
            self.credit.insert(key, row);
        }
        self.credit_log.append(events);
    }
}

/// What an order event means to the customer service.
fn credit_input(event: &NewEvent) -> Option<credit::Input> {
    let order_id: Uuid = event.aggregate_id.parse().expect("an id");
    let customer_id = Uuid::from_bytes(event.partition_key);
    let now_ms = 3;
    match event.event_type.rsplit('.').next() {
        Some("OrderCreated") => {
            let created: OrderCreated = decode_event(&received(event)).expect("an order");
            let total = Amount::try_from(&created.total.expect("set")).expect("money");
            Some(credit::Input::OrderCreated { order_id, customer_id, total, now_ms })
        }
        Some("OrderCancelled" | "OrderRejected") => Some(credit::Input::OrderEnded { order_id, customer_id, now_ms }),
        _ => None,
    }
}

/// What a customer event means to the order service.
fn order_input(event: &NewEvent) -> Option<orders::Input> {
    let order_id = event.aggregate_id.parse().expect("an id");
    let now_ms = 4;
    if event.event_type == CreditReserved::full_name() {
        Some(orders::Input::CreditReserved { order_id, now_ms })
    } else if event.event_type == CreditReleased::full_name() {
        Some(orders::Input::CreditReleased { order_id, now_ms })
    } else if event.event_type == CreditRefused::full_name() {
        let reason = RejectionReason::InsufficientCredit;
        Some(orders::Input::CreditRefused { order_id, reason, now_ms })
    } else {
        None
    }
}

fn reserved(rows: &Rows<credit::Key, credit::Row>, customer_id: Uuid) -> i64 {
    match rows.get(&credit::Key::Customer(customer_id)) {
        Some(credit::Row::Customer(customer)) => customer.reserved.minor(),
        other => panic!("no customer: {other:?}"),
    }
}

fn state(rows: &Rows<orders::Key, orders::Row>, number: u8) -> orders::State {
    match rows.get(&orders::Key::Order(order_id(number))) {
        Some(orders::Row::Order(order)) => order.state,
        other => panic!("no order: {other:?}"),
    }
}

fn received(event: &NewEvent) -> Event {
    let payload = prost_types::Any { type_url: String::new(), value: event.payload.clone() };
    Event { r#type: event.event_type.clone(), payload: Some(payload), ..Event::default() }
}

proptest! {
    #[test]
    fn exactly_the_approved_orders_hold_credit_once_all_has_arrived(steps in steps()) {
        let mut saga = Saga::new();
        for step in &steps {
            saga.step(step);
            for customer in CUSTOMERS {
                prop_assert!(reserved(&saga.credit, customer) <= LIMIT);
            }
        }
        saga.settle();
        for customer in CUSTOMERS {
            let approved = saga.created.iter().filter(|order| customer_of(**order) == customer).filter(|order| {
                matches!(state(&saga.orders, **order), orders::State::Approved)
            });
            prop_assert_eq!(reserved(&saga.credit, customer), approved.map(|order| total_of(*order).minor()).sum::<i64>());
        }
        for order in &saga.created {
            prop_assert!(state(&saga.orders, *order).is_terminal());
        }
    }
}
