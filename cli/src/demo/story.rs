//! Makes the plan happen: customers first, then the orders, each followed to its end, a fixed number at a time.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use meshwork_shop::{
    Amount, Currency,
    contract::shop::{
        customer::v1::CreateCustomerRequest,
        order::v1::{CancelOrderRequest, CreateOrderRequest, GetOrderRequest, OrderState},
        r#type::v1::Money,
    },
};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::{
    clients::{Clients, request, retry},
    plan::{Plan, PlannedOrder},
    tracker::Tracker,
};
use crate::{
    audit::{Promise, is_terminal},
    error::Error,
};

/// How many orders are under way at a time: a busy shop, and what the benchmark uses.
const IN_FLIGHT: usize = 64;
/// The longest latency that the histogram tells from longer ones, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;

/// A story that is about to be played.
pub(super) struct Story {
    orders: Vec<PlannedOrder>,
    /// The ids of the customers.
    customers: Vec<String>,
    clients: Clients,
    tracker: Arc<Tracker>,
    placed: watch::Sender<u32>,
    _follower: AbortOnDropHandle<()>,
}

/// How it went.
pub(super) struct Played {
    /// The ids of the customers.
    pub(super) customers: Vec<String>,
    /// The orders that were acknowledged.
    pub(super) promises: Vec<Promise>,
    /// From the call of CreateOrder until a terminal state was seen, in microseconds; without the orders that were
    /// cancelled, whose end is not the mesh's doing.
    pub(super) latency_us: Histogram<u64>,
    /// From the first order's call to the last order's end.
    pub(super) elapsed: Duration,
}

/// An order's end.
struct End {
    promise: Promise,
    latency: Option<Duration>,
}

impl Story {
    /// Creates the customers, and begins to watch their orders.
    pub(super) async fn begin(plan: Plan, clients: Clients) -> Result<Self, Error> {
        let create = |(index, limit): (usize, i64)| create_customer(&clients, index, limit);
        let customers: Vec<String> =
            stream::iter(plan.limits.into_iter().enumerate()).map(create).buffered(IN_FLIGHT).try_collect().await?;
        let tracker = Tracker::new(customers.iter().cloned());
        let follower = AbortOnDropHandle::new(tokio::spawn(tracker.clone().follow(clients.query.clone())));
        tracker.stands().await.map_err(Error::call("watch the orders"))?;
        let placed = watch::Sender::new(0);
        Ok(Self { orders: plan.orders, customers, clients, tracker, placed, _follower: follower })
    }

    /// How many orders have been acknowledged; closed when the story is over.
    pub(super) fn placed(&self) -> watch::Receiver<u32> {
        self.placed.subscribe()
    }

    /// Places every order and sees how it ends.
    pub(super) async fn play(self) -> Result<Played, Error> {
        let bar = progress_bar(self.orders.len());
        let begin = Instant::now();
        let ends: Vec<End> = stream::iter(self.orders.clone())
            .map(|order| self.follow_through(order))
            .buffer_unordered(IN_FLIGHT)
            .inspect(|_| bar.inc(1))
            .try_collect()
            .await?;
        let elapsed = begin.elapsed();
        bar.finish_and_clear();

        let mut latency_us = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds and precision that it takes");
        for latency in ends.iter().filter_map(|end| end.latency) {
            latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US));
        }
        let promises = ends.into_iter().map(|end| end.promise).collect();
        Ok(Played { customers: self.customers, promises, latency_us, elapsed })
    }

    async fn follow_through(&self, order: PlannedOrder) -> Result<End, Error> {
        let customer_id = self.customers[order.customer].clone();
        let create = CreateOrderRequest {
            customer_id: customer_id.clone(),
            total: Some(usd(order.cents)),
            request_id: meshwork::id::new_id().to_string(),
        };
        let begin = Instant::now();
        let call = || {
            let (mut client, create) = (self.clients.order.clone(), create.clone());
            async move { client.create_order(request(create)).await }
        };
        let order_id = retry(call).await.map_err(Error::call("place an order"))?.order_id;
        self.placed.send_modify(|placed| *placed += 1);

        let cancelled = order.cancel && self.cancel(&order_id).await?;
        let is_end = |state| if cancelled { is_cancelled_or_never_was(state) } else { is_terminal(state) };
        let end = self.tracker.end_of(&order_id, is_end, || self.state_of(&order_id)).await;
        let latency = end.filter(|_| !order.cancel).map(|end| end.at.duration_since(begin));
        Ok(End { promise: Promise { order_id, customer_id, cents: order.cents, cancelled }, latency })
    }

    /// Whether the order could be cancelled; one that was rejected meanwhile cannot.
    async fn cancel(&self, order_id: &str) -> Result<bool, Error> {
        let call = || {
            let (mut client, cancel) = (self.clients.order.clone(), CancelOrderRequest { order_id: order_id.into() });
            async move { client.cancel_order(request(cancel)).await }
        };
        match retry(call).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(false),
            Err(status) => Err(Error::call("cancel an order")(status)),
        }
    }

    async fn state_of(&self, order_id: &str) -> Result<OrderState, tonic::Status> {
        let order = GetOrderRequest { order_id: order_id.to_owned() };
        Ok(self.clients.order.clone().get_order(request(order)).await?.into_inner().state())
    }
}

/// What ends an order whose cancellation was acknowledged. REJECTED would be a broken promise, for the audit to tell; but it
/// is an end.
fn is_cancelled_or_never_was(state: OrderState) -> bool {
    matches!(state, OrderState::Cancelled | OrderState::Rejected)
}

async fn create_customer(clients: &Clients, index: usize, limit: i64) -> Result<String, Error> {
    let create = CreateCustomerRequest {
        name: format!("Customer {}", index + 1),
        credit_limit: Some(usd(limit)),
        request_id: meshwork::id::new_id().to_string(),
    };
    let call = || {
        let (mut client, create) = (clients.customer.clone(), create.clone());
        async move { client.create_customer(request(create)).await }
    };
    Ok(retry(call).await.map_err(Error::call("create a customer"))?.customer_id)
}

fn usd(cents: i64) -> Money {
    let usd = Currency::from_code("USD").expect("a currency of ISO 4217");
    Amount::new(cents, usd).expect("plans have no negative amounts").into()
}

/// On a terminal only: in a log it would be noise.
fn progress_bar(orders: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} orders  {per_sec}  {elapsed}");
    ProgressBar::new(orders as u64).with_style(style.expect("a template that indicatif reads"))
}
