//! Customers who order while the shop breaks: an open loop, whose errands insist on an answer to all that changes something.
//!
//! Every command has a `request_id` (AIP-155), so that one whose answer was lost can be repeated and is done once. What is
//! ordered is drawn from the seed; how it goes depends on the faults.

use std::{sync::Arc, time::Duration};

use meshwork::Mesh;
use meshwork_cli::audit::{Promise, is_terminal};
use meshwork_shop::{
    Amount, Currency,
    contract::shop::{
        customer::v1::CreateCustomerRequest,
        order::v1::{self as order, CancelOrderRequest, CreateOrderRequest, WatchOrderRequest},
        query::v1 as query,
        r#type::v1::Money,
    },
};
use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::calls::{Calls, request};

/// What customers pay in. All have cents, as the audit has.
const CURRENCIES: [&str; 3] = ["USD", "EUR", "GBP"];
/// What an order costs, in cents.
const CENTS: std::ops::Range<i64> = 100..6_000;
/// What a customer may spend, in cents: enough for some orders of several a second, so that limits bind.
const LIMITS: std::ops::Range<i64> = 20_000..400_000;
/// Customers before the first order, and how many of the newest order: enough to spread over all partitions.
const CUSTOMERS: usize = 64;
/// A new customer is created every this many orders, since the old ones soon exhaust their credit.
const ORDERS_PER_CUSTOMER: u64 = 100;
/// Before a late cancellation.
const LATER_MS: std::ops::Range<u64> = 500..4_000;
/// How long an order is watched: longer than its saga may take.
const WATCH_LIMIT: Duration = Duration::from_secs(45);
/// Errands at a time: orders beyond it are not begun, only counted. At 200 a second that is an outage of 25 s.
const MAX_ERRANDS: usize = 5_000;

/// The load on a shop.
pub(super) struct Load {
    calls: Arc<Calls>,
    books: Arc<Books>,
    errands: TaskTracker,
}

/// What was acknowledged.
#[derive(Default)]
struct Books {
    customers: Mutex<Vec<Known>>,
    promises: Mutex<Vec<Acknowledged>>,
    /// When the orders' store was set back: from before the backup until no process with the lost orders was left.
    restores: Mutex<Vec<(Instant, Instant)>>,
    /// Orders, by their place among the promises, that were said not to be there, and what was asked.
    missed: Mutex<Vec<(usize, String)>>,
}

/// An order that was acknowledged.
#[derive(Clone)]
struct Acknowledged {
    promise: Promise,
    call: Span,
    position_token: String,
    cancel: Option<Span>,
}

/// From a request to its answer, which was true at some time between. The process that gave it may have ended before.
#[derive(Clone, Copy)]
struct Span {
    asked: Instant,
    answered: Instant,
}

impl Span {
    fn since(asked: Instant) -> Self {
        Self { asked, answered: Instant::now() }
    }

    /// Whether what was answered may have been lost in one of these restores.
    fn is_in_lost_time(&self, restores: &[(Instant, Instant)]) -> bool {
        restores.iter().any(|(from, until)| self.answered >= *from && self.asked < *until)
    }
}

/// A customer who was acknowledged.
#[derive(Clone)]
struct Known {
    customer_id: String,
    currency: Currency,
}

/// What an errand does.
struct Errand {
    customer_id: String,
    total: Amount,
    then: Then,
}

/// What happens to an order that was acknowledged.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    Cancel(Duration),
    Get,
    Query,
    Watch,
}

impl Load {
    /// The first customers are there.
    pub(super) async fn begin(mesh: &Mesh, rng: &mut StdRng) -> Self {
        let load = Self { calls: Arc::new(Calls::new(mesh)), books: Arc::default(), errands: TaskTracker::new() };
        let first: Vec<_> =
            (0..CUSTOMERS).map(|_| create_customer(&load.calls, &load.books, draw_customer(rng))).collect();
        futures_util::future::join_all(first).await;
        load
    }

    pub(super) fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Begins `per_second` orders a second for `length`. Returns how many were not begun because too many were under way.
    pub(super) async fn run(&self, seed: u64, per_second: u64, length: Duration) -> u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ticks = interval(Duration::from_secs(1) / u32::try_from(per_second).expect("bounded by its parser"));
        // An open loop: what could not be begun in time is begun at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (end, mut left_out) = (Instant::now() + length, 0);
        for number in 0.. {
            if ticks.tick().await >= end {
                break;
            }
            let errand = self.draw_errand(&mut rng);
            let customer = (number % ORDERS_PER_CUSTOMER == 0).then(|| draw_customer(&mut rng));
            if self.errands.len() >= MAX_ERRANDS {
                left_out += 1;
                continue;
            }
            let (calls, books) = (self.calls.clone(), self.books.clone());
            if let Some(customer) = customer {
                let (calls, books) = (calls.clone(), books.clone());
                self.errands.spawn(async move { create_customer(&calls, &books, customer).await });
            }
            self.errands.spawn(async move { errand.run(&calls, &books).await });
        }
        left_out
    }

    /// Waits until every errand is done, which each is in a bounded time.
    pub(super) async fn done(&self) {
        self.errands.close();
        self.errands.wait().await;
    }

    /// How many orders were acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.books.promises().len()
    }

    /// The orders' store was set back to a backup that was begun at `from`; from `until` on it acknowledges again.
    pub(super) fn restored(&self, from: Instant, until: Instant) {
        self.books.restores().push((from, until));
    }

    /// Whether the orders' store was ever set back.
    pub(super) fn was_restored(&self) -> bool {
        !self.books.restores().is_empty()
    }

    /// The orders that were acknowledged: those that must be there, and those that may have been lost in a restore, each with its
    /// position token.
    pub(super) fn promises(&self) -> (Vec<Promise>, Vec<(Promise, String)>) {
        let restores = self.books.restores().clone();
        let (mut kept, mut doubtful) = (Vec::new(), Vec::new());
        for acknowledged in self.books.promises().iter() {
            let mut promise = acknowledged.promise.clone();
            // The order may be older, and its end be lost.
            promise.cancelled &= !acknowledged.cancel.is_some_and(|cancel| cancel.is_in_lost_time(&restores));
            if acknowledged.call.is_in_lost_time(&restores) {
                doubtful.push((promise, acknowledged.position_token.clone()));
            } else {
                kept.push(promise);
            }
        }
        (kept, doubtful)
    }

    /// Orders that were said not to be there although no restore can have lost them.
    pub(super) fn wrongly_missed(&self) -> Vec<String> {
        let restores = self.books.restores().clone();
        let promises = self.books.promises();
        let is_wrong = |(index, _): &&(usize, String)| !promises[*index].call.is_in_lost_time(&restores);
        let missed = self.books.missed();
        let say = |(index, what): &(usize, String)| format!("{what}: order {}", promises[*index].promise.order_id);
        missed.iter().filter(is_wrong).map(say).collect()
    }

    /// The customers who were acknowledged.
    pub(super) fn customers(&self) -> Vec<String> {
        self.books.customers().iter().map(|known| known.customer_id.clone()).collect()
    }

    fn draw_errand(&self, rng: &mut StdRng) -> Errand {
        let known = {
            let customers = self.books.customers();
            let newest = &customers[customers.len().saturating_sub(CUSTOMERS)..];
            newest.get(rng.random_range(0..CUSTOMERS)).cloned()
        };
        let unknown = || Known { customer_id: Uuid::new_v4().to_string(), currency: currency(CURRENCIES[0]) };
        let known = known.filter(|_| !rng.random_ratio(1, 50)).unwrap_or_else(unknown);
        let other = currency(CURRENCIES[rng.random_range(0..CURRENCIES.len())]);
        let currency = if rng.random_ratio(1, 50) { other } else { known.currency };
        let total = amount(rng.random_range(CENTS), currency);
        let later = Duration::from_millis(rng.random_range(LATER_MS));
        let then = match rng.random_range(0..20) {
            0..2 => Then::Cancel(Duration::ZERO),
            2..6 => Then::Cancel(later),
            6..8 => Then::Get,
            8..10 => Then::Query,
            10 => Then::Watch,
            _ => Then::Nothing,
        };
        Errand { customer_id: known.customer_id, total, then }
    }
}

impl Books {
    fn customers(&self) -> MutexGuard<'_, Vec<Known>> {
        self.customers.lock()
    }

    fn promises(&self) -> MutexGuard<'_, Vec<Acknowledged>> {
        self.promises.lock()
    }

    fn restores(&self) -> MutexGuard<'_, Vec<(Instant, Instant)>> {
        self.restores.lock()
    }

    fn missed(&self) -> MutexGuard<'_, Vec<(usize, String)>> {
        self.missed.lock()
    }

    /// An acknowledged order is said not to be there: whether that can be is known when all restores are.
    fn miss(&self, index: usize, what: &str) {
        self.missed().push((index, what.to_owned()));
    }
}

impl Errand {
    async fn run(self, calls: &Calls, books: &Books) {
        let create = CreateOrderRequest {
            customer_id: self.customer_id.clone(),
            total: Some(self.total.into()),
            request_id: Uuid::now_v7().to_string(),
        };
        let call = || {
            let (mut client, create) = (calls.order.clone(), create.clone());
            async move { client.create_order(request(create)).await }
        };
        let (asked, order) = match calls.insist("CreateOrder", call).await {
            Some((asked, Ok(order))) => (asked, order),
            Some((_, Err(status))) => return calls.wrong(format!("CreateOrder: {status}")),
            None => return,
        };
        self.compare(calls, "CreateOrder", &order.customer_id, order.total.as_ref());
        let order_id = order.order_id.clone();
        let promise = Promise {
            order_id: order.order_id.clone(),
            customer_id: self.customer_id.clone(),
            cents: self.total.minor(),
            cancelled: false,
        };
        let (call, position_token) = (Span::since(asked), order.position_token.clone());
        // Before anything else, which may fail: what was acknowledged is promised.
        let index = {
            let mut promises = books.promises();
            promises.push(Acknowledged { promise, call, position_token, cancel: None });
            promises.len() - 1
        };
        match self.then {
            Then::Nothing => {}
            Then::Cancel(after) => {
                sleep(after).await;
                cancel(calls, books, index, order_id).await;
            }
            Then::Get => self.get(calls, books, index, order_id).await,
            Then::Query => self.query(calls, books, index, order).await,
            Then::Watch => watch(calls, books, index, order_id).await,
        }
    }

    async fn get(&self, calls: &Calls, books: &Books, index: usize, order_id: String) {
        let mut client = calls.order.clone();
        match client.get_order(request(order::GetOrderRequest { order_id })).await {
            Err(status) if status.code() == Code::NotFound => books.miss(index, "GetOrder: not found"),
            answer => {
                if let Some(order) = calls.attempt("GetOrder", async { answer }).await {
                    self.compare(calls, "GetOrder", &order.customer_id, order.total.as_ref());
                }
            }
        }
    }

    /// Reads its own write.
    async fn query(&self, calls: &Calls, books: &Books, index: usize, order: order::Order) {
        let order::Order { order_id, position_token, .. } = order;
        let mut client = calls.query.clone();
        match client.get_order(request(query::GetOrderRequest { order_id, position_token })).await {
            // Not for an order that a restore has lost, either: that must be said.
            Err(status) if status.code() == Code::NotFound => {
                calls.wrong("query.GetOrder: an order is unknown at its own position");
            }
            Err(status) if is_position_lost(&status) => books.miss(index, "query.GetOrder: position lost"),
            answer => {
                if let Some(order) = calls.attempt("query.GetOrder", async { answer }).await {
                    self.compare(calls, "query.GetOrder", &order.customer_id, order.total.as_ref());
                }
            }
        }
    }

    fn compare(&self, calls: &Calls, rpc: &str, customer_id: &str, total: Option<&Money>) {
        if (customer_id, total) != (self.customer_id.as_str(), Some(&self.total.into())) {
            calls.wrong(format!("{rpc}: another order than the one that was placed"));
        }
    }
}

/// Whether a view says that its source has lost what stood at a position.
pub(super) fn is_position_lost(status: &Status) -> bool {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    status.code() == Code::FailedPrecondition && reason == Some("POSITION_LOST")
}

/// Cancels an order, unless it was rejected meanwhile.
async fn cancel(calls: &Calls, books: &Books, index: usize, order_id: String) {
    let call = || {
        let (mut client, cancel) = (calls.order.clone(), CancelOrderRequest { order_id: order_id.clone() });
        async move { client.cancel_order(request(cancel)).await }
    };
    match calls.insist("CancelOrder", call).await {
        Some((asked, Ok(_))) => {
            let acknowledged = &mut books.promises()[index];
            acknowledged.promise.cancelled = true;
            acknowledged.cancel = Some(Span::since(asked));
        }
        Some((_, Err(status))) if status.code() == Code::NotFound => books.miss(index, "CancelOrder: not found"),
        Some((_, Err(_))) | None => {}
    }
}

/// Sees an order's end on one stream, or the end of the stream.
async fn watch(calls: &Calls, books: &Books, index: usize, order_id: String) {
    let mut client = calls.order.clone();
    let watched = async {
        let answer = client.watch_order(WatchOrderRequest { order_id }).await;
        if answer.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
            books.miss(index, "WatchOrder: not found");
            return;
        }
        let Some(mut orders) = calls.attempt("WatchOrder", async { answer }).await else { return };
        let mut last = None;
        loop {
            match orders.message().await {
                Ok(Some(order)) => last = Some(order.state()),
                Ok(None) => break,
                Err(status) => {
                    calls.attempt::<()>("WatchOrder", async { Err(status) }).await;
                    return;
                }
            }
        }
        if !last.is_some_and(is_terminal) {
            calls.wrong("WatchOrder: ended without an error before the order did");
        }
    };
    // A stream that stands still for longer is a failure that faults explain: its order is judged at the end.
    let _ = timeout(WATCH_LIMIT, watched).await;
}

fn draw_customer(rng: &mut StdRng) -> Amount {
    amount(rng.random_range(LIMITS), currency(CURRENCIES[rng.random_range(0..CURRENCIES.len())]))
}

async fn create_customer(calls: &Calls, books: &Books, limit: Amount) {
    let create = CreateCustomerRequest {
        name: format!("{} in {}", limit.minor(), limit.currency().code()),
        credit_limit: Some(limit.into()),
        request_id: Uuid::now_v7().to_string(),
    };
    let call = || {
        let (mut client, create) = (calls.customer.clone(), create.clone());
        async move { client.create_customer(request(create)).await }
    };
    match calls.insist("CreateCustomer", call).await {
        Some((_, Ok(customer))) => {
            let known = Known { customer_id: customer.customer_id, currency: limit.currency() };
            books.customers().push(known);
        }
        Some((_, Err(status))) => calls.wrong(format!("CreateCustomer: {status}")),
        None => {}
    }
}

fn amount(cents: i64, currency: Currency) -> Amount {
    Amount::new(cents, currency).expect("ranges have no negative amounts")
}

fn currency(code: &str) -> Currency {
    Currency::from_code(code).expect("a currency of ISO 4217")
}
