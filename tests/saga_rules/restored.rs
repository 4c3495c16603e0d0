//! Either half is set back to a backup, at any time and any number of times, while the other has gone on: once each has
//! been reconciled and all has arrived, every order that is still there is settled, and exactly the approved ones hold
//! credit.

use super::*;

/// Orders are never taken twice, also not after a restore.
const MANY_ORDERS: u8 = 40;
const MAX_LIMIT: i64 = 2 * LIMIT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Orders,
    Credit,
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Cancel(prop::sample::Index),
    TimeOut(prop::sample::Index),
    /// The limit of all customers is set, if it covers what they have reserved.
    Limit(i64),
    /// A side reads this many events of the other.
    Read(Side, u8),
    Backup(Side),
    Restore(Side),
    /// An operator brings a side's reader back.
    Reconcile(Side),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop::sample::select(vec![Side::Orders, Side::Credit]);
    let step = prop_oneof![
        8 => Just(Step::Create),
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => any::<prop::sample::Index>().prop_map(Step::TimeOut),
        1 => (LIMIT / 2..=MAX_LIMIT).prop_map(Step::Limit),
        10 => (side(), 1..6_u8).prop_map(|(side, count)| Step::Read(side, count)),
        2 => side().prop_map(Step::Backup),
        2 => side().prop_map(Step::Restore),
        1 => side().prop_map(Step::Reconcile),
    ];
    prop::collection::vec(step, 1..80)
}

/// The log of a side: its events with their ids, which go up for ever.
#[derive(Clone, Default)]
struct SideLog(Vec<(u64, NewEvent)>);

/// How far a side has read the other's log: a position, and the id of the event there.
#[derive(Clone, Copy, Default)]
struct Cursor {
    position: usize,
    id: u64,
}

impl SideLog {
    /// The next event after a cursor; `None` also where its past is not this log's.
    fn after(&self, cursor: Cursor) -> Option<(Cursor, NewEvent)> {
        let stands = cursor.position == 0 || self.0.get(cursor.position - 1).is_some_and(|(id, _)| *id == cursor.id);
        let (id, event) = self.0.get(cursor.position).filter(|_| stands)?;
        Some((Cursor { position: cursor.position + 1, id: *id }, event.clone()))
    }

    /// The last cursor that both know.
    fn common(&self, cursor: Cursor) -> Cursor {
        let known = self.0.iter().take(cursor.position).take_while(|(id, _)| *id <= cursor.id);
        let position = known.clone().count();
        Cursor { position, id: known.last().map_or(0, |(id, _)| *id) }
    }
}

/// All that a side's database holds.
#[derive(Clone, Default)]
struct OrderStore {
    rows: Rows<orders::Key, orders::Row>,
    ids: Vec<u8>,
    log: SideLog,
    read: Cursor,
}

#[derive(Clone, Default)]
struct CreditStore {
    rows: Rows<credit::Key, credit::Row>,
    log: SideLog,
    read: Cursor,
}

#[derive(Default)]
struct World {
    orders: OrderStore,
    credit: CreditStore,
    order_backup: OrderStore,
    credit_backup: CreditStore,
    created: u8,
    last_id: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        for id in CUSTOMERS {
            let (name, limit) = ("Alice".to_owned(), usd(LIMIT));
            world.decide_credit(&credit::Input::CreateCustomer { id, name, limit, request: None, now_ms: 1 });
        }
        world.credit_backup = world.credit.clone();
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Create if self.created < MANY_ORDERS => {
                let number = self.created;
                self.created += 1;
                self.orders.ids.push(number);
                self.decide_order(&orders::Input::CreateOrder {
                    order_id: order_id(number),
                    customer_id: customer_of(number),
                    total: total_of(number),
                    request: None,
                    now_ms: 1,
                    deadline_ms: DEADLINE_MS,
                });
            }
            Step::Create => {}
            Step::Cancel(which) => {
                self.of_an_order(which, |order_id| orders::Input::CancelOrder { order_id, now_ms: 2 });
            }
            Step::TimeOut(which) => {
                self.of_an_order(which, |order_id| orders::Input::TimeOut {
                    order_id,
                    now_ms: DEADLINE_MS,
                    overdue_ms: DEADLINE_MS,
                });
            }
            Step::Limit(minor) => {
                for id in CUSTOMERS {
                    let limit = usd(*minor);
                    self.decide_credit(&credit::Input::UpdateCreditLimit { id, limit, etag: String::new(), now_ms: 2 });
                }
            }
            Step::Read(side, count) => {
                for _ in 0..*count {
                    self.read(*side);
                }
            }
            Step::Backup(Side::Orders) => self.order_backup = self.orders.clone(),
            Step::Backup(Side::Credit) => self.credit_backup = self.credit.clone(),
            Step::Restore(Side::Orders) => self.orders = self.order_backup.clone(),
            Step::Restore(Side::Credit) => self.credit = self.credit_backup.clone(),
            Step::Reconcile(side) => self.reconcile(*side),
        }
    }

    fn of_an_order(&mut self, which: &prop::sample::Index, input: impl Fn(Uuid) -> orders::Input) {
        if !self.orders.ids.is_empty() {
            let number = self.orders.ids[which.index(self.orders.ids.len())];
            self.decide_order(&input(order_id(number)));
        }
    }

    /// A side reads the next event of the other, if its past is the other's. Says whether there was one.
    fn read(&mut self, side: Side) -> bool {
        match side {
            Side::Orders => {
                let Some((read, event)) = self.credit.log.after(self.orders.read) else { return false };
                self.orders.read = read;
                if let Some(input) = order_input(&event) {
                    self.decide_order(&input);
                }
            }
            Side::Credit => {
                let Some((read, event)) = self.orders.log.after(self.credit.read) else { return false };
                self.credit.read = read;
                if let Some(input) = credit_input(&event) {
                    self.decide_credit(&input);
                }
            }
        }
        true
    }

    /// As the services do it: what lost events have done is undone, then the cursor goes back.
    fn reconcile(&mut self, side: Side) {
        match side {
            Side::Orders => self.orders.read = self.credit.log.common(self.orders.read),
            Side::Credit => {
                let lost: Vec<Uuid> =
                    (0..self.created).filter(|n| !self.orders.ids.contains(n)).map(order_id).collect();
                for order_id in lost {
                    if let Some(credit::Row::Reservation(held)) =
                        self.credit.rows.get(&credit::Key::Reservation(order_id))
                    {
                        let customer_id = held.customer_id;
                        self.decide_credit(&credit::Input::OrderEnded { order_id, customer_id, now_ms: 5 });
                    }
                }
                self.credit.read = self.orders.log.common(self.credit.read);
            }
        }
    }

    fn settle(&mut self) {
        // Undoing on one side tells the other something.
        for side in [Side::Credit, Side::Orders] {
            self.reconcile(side);
        }
        while self.read(Side::Credit) || self.read(Side::Orders) {}
        for number in self.orders.ids.clone() {
            self.decide_order(&orders::Input::TimeOut {
                order_id: order_id(number),
                now_ms: DEADLINE_MS,
                overdue_ms: DEADLINE_MS,
            });
        }
        while self.read(Side::Credit) || self.read(Side::Orders) {}
    }

    fn decide_order(&mut self, input: &orders::Input) {
        // A refused command changes nothing.
        let decided = orders::Orders::default().decide(&self.orders.rows, input);
        let Ok(Outcome { rows, events, .. }) = decided else { return };
        for (key, row) in rows {
            self.orders.rows.insert(key, row);
        }
        let ids = (1..).map(|next| self.last_id + next);
        self.orders.log.0.extend(ids.zip(events));
        self.last_id = self.last_id.max(self.orders.log.0.last().map_or(0, |(id, _)| *id));
    }

    fn decide_credit(&mut self, input: &credit::Input) {
        let decided = credit::Customers.decide(&self.credit.rows, input);
        let limit_in_use = matches!(&decided, Err(credit::Refusal::CreditInUse));
        assert!(decided.is_ok() || limit_in_use, "no event is refused: {decided:?}");
        let Ok(Outcome { rows, events, .. }) = decided else { return };
        for (key, row) in rows {
            self.credit.rows.insert(key, row);
        }
        let ids = (1..).map(|next| self.last_id + next);
        self.credit.log.0.extend(ids.zip(events));
        self.last_id = self.last_id.max(self.credit.log.0.last().map_or(0, |(id, _)| *id));
    }
}

proptest! {
    #[test]
    fn exactly_the_approved_orders_hold_credit_after_restores_that_were_reconciled(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for customer in CUSTOMERS {
                prop_assert!(reserved(&world.credit.rows, customer) <= MAX_LIMIT);
            }
        }
        world.settle();
        for customer in CUSTOMERS {
            let of_customer = world.orders.ids.iter().filter(|order| customer_of(**order) == customer);
            let approved = of_customer.filter(|order| state(&world.orders.rows, **order) == orders::State::Approved);
            let sum: i64 = approved.map(|order| total_of(*order).minor()).sum();
            prop_assert_eq!(reserved(&world.credit.rows, customer), sum);
        }
        for order in &world.orders.ids {
            prop_assert!(state(&world.orders.rows, *order).is_terminal());
        }
    }
}
