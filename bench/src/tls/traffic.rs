//! Calls of all services of the shop, evenly, and what becomes of them and of the orders that they place.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use meshwork::{Mesh, channel::Channel};
use meshwork_harness::report::{Failures, Figures, quantile_ms};
use meshwork_shop::contract::shop::{
    customer::v1::{CreateCustomerRequest, GetCustomerRequest, customer_service_client::CustomerServiceClient},
    order::v1::{CreateOrderRequest, GetOrderRequest, OrderState, order_service_client::OrderServiceClient},
    query::v1::{ListOrdersRequest, query_service_client::QueryServiceClient},
    r#type::v1::Money,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::error::Error;
use crate::{
    load,
    open_loop::{Ended, offer_while},
};

/// Calls that begin each second.
pub(super) const PER_S: u32 = 500;
/// A call may take this long.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Load before and after what is done under it.
const QUIET: Duration = Duration::from_secs(2);
/// Every order must be APPROVED by then.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How often an order is looked at, and how many at a time.
const POLL: Duration = Duration::from_millis(100);
const LOOKING: usize = 16;
/// Customers that order.
const CUSTOMERS: usize = 20;

/// A client of each service.
#[derive(Clone)]
struct Clients {
    customer: CustomerServiceClient<Channel>,
    order: OrderServiceClient<Channel>,
    query: QueryServiceClient<Channel>,
}

impl Clients {
    fn of(mesh: &Mesh) -> Self {
        Self {
            customer: CustomerServiceClient::new(mesh.channel("customer")),
            order: OrderServiceClient::new(mesh.channel("order")),
            query: QueryServiceClient::new(mesh.channel("query")),
        }
    }

    /// The kinds of calls, in turn.
    async fn call(mut self, number: usize, customer_id: String, placed: Arc<Mutex<Vec<String>>>) -> Result<(), String> {
        let failed = |what: &'static str| move |status: Status| format!("{what}: {status}");
        let newest = placed.lock().last().cloned();
        match (number % 4, newest) {
            (0, _) | (2, None) => {
                let total = Some(usd(12));
                let request = CreateOrderRequest { customer_id, total, request_id: uuid::Uuid::new_v4().to_string() };
                let order = self.order.create_order(limited(request)).await.map_err(failed("CreateOrder"))?;
                placed.lock().push(order.into_inner().order_id);
                Ok(())
            }
            (1, _) => {
                let request = limited(GetCustomerRequest { customer_id });
                self.customer.get_customer(request).await.map(drop).map_err(failed("GetCustomer"))
            }
            (2, Some(order_id)) => {
                let request = limited(GetOrderRequest { order_id });
                self.order.get_order(request).await.map(drop).map_err(failed("GetOrder"))
            }
            _ => {
                let request = limited(ListOrdersRequest { customer_id, page_size: 10, ..Default::default() });
                self.query.list_orders(request).await.map(drop).map_err(failed("ListOrders"))
            }
        }
    }
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

fn usd(units: i64) -> Money {
    Money { currency_code: "USD".to_owned(), units, nanos: 0 }
}

/// The load.
pub(super) struct Traffic {
    clients: Mutex<Clients>,
    customers: Vec<String>,
    placed: Arc<Mutex<Vec<String>>>,
}

impl Traffic {
    /// Creates the customers.
    pub(super) async fn open(mesh: &Mesh) -> Result<Self, load::Error> {
        let mut clients = Clients::of(mesh);
        let mut customers = Vec::new();
        for number in 0..CUSTOMERS {
            let (name, credit_limit) = (format!("customer {number}"), Some(usd(1_000_000_000)));
            let request = limited(CreateCustomerRequest { name, credit_limit, ..Default::default() });
            let created = clients.customer.create_customer(request).await;
            customers.push(created.map_err(load::Error::call("CreateCustomer"))?.into_inner().customer_id);
        }
        Ok(Self { clients: Mutex::new(clients), customers, placed: Arc::default() })
    }

    /// Its calls are those of another mesh from now on.
    pub(super) fn move_to(&self, mesh: &Mesh) {
        *self.clients.lock() = Clients::of(mesh);
    }

    /// One call of each kind through another mesh.
    pub(super) async fn try_through(&self, mesh: &Mesh) -> Result<(), String> {
        for number in 0..4 {
            Clients::of(mesh).call(number, self.customers[0].clone(), self.placed.clone()).await?;
        }
        Ok(())
    }

    fn call(&self, number: usize) -> BoxFuture<'static, Result<(), String>> {
        let customer_id = self.customers[number / 4 % self.customers.len()].clone();
        Box::pin(self.clients.lock().clone().call(number, customer_id, self.placed.clone()))
    }

    /// Does something under load.
    pub(super) async fn during(&self, work: impl Future<Output = Result<(), Error>>) -> Result<Vec<Ended>, Error> {
        let (done, mut numbers) = (CancellationToken::new(), 0..);
        let call = || self.call(numbers.next().expect("there is no last number"));
        let work = async {
            sleep(QUIET).await;
            let worked = work.await;
            if worked.is_ok() {
                sleep(QUIET).await;
            }
            done.cancel();
            worked
        };
        let (ended, worked) = tokio::join!(offer_while(PER_S, |_| !done.is_cancelled(), call), work);
        worked.map(|()| ended)
    }

    /// Waits until the orders that were placed are all APPROVED; counts those that are not.
    pub(super) async fn settle(&self) -> Failures {
        let (client, until) = (self.clients.lock().order.clone(), Instant::now() + SETTLE_LIMIT);
        let placed = self.placed.lock().clone();
        let looks = placed.into_iter().map(|order_id| approved(client.clone(), order_id, until));
        let mut failures = Failures::default();
        let mut looks = stream::iter(looks).buffer_unordered(LOOKING);
        while let Some(looked) = looks.next().await {
            if let Err(failure) = looked {
                failures.add(failure);
            }
        }
        failures
    }
}

async fn approved(mut client: OrderServiceClient<Channel>, order_id: String, until: Instant) -> Result<(), String> {
    loop {
        let request = limited(GetOrderRequest { order_id: order_id.clone() });
        let order = client.get_order(request).await.map_err(|status| format!("an order in the end: {status}"))?;
        match order.into_inner().state() {
            OrderState::Approved => return Ok(()),
            OrderState::Pending if Instant::now() < until => sleep(POLL).await,
            state => return Err(format!("an order is {} in the end", state.as_str_name())),
        }
    }
}

/// What came of the calls, as figures that end with `during`.
pub(super) fn figures_of(ended: &[Ended], during: &str) -> (Figures, Failures) {
    let (mut figures, mut failures) = (Figures::default(), Failures::default());
    let failed = ended.iter().filter_map(|ended| ended.failure.as_ref());
    let failed = failed.inspect(|failure| failures.add(format!("{during}: {failure}"))).count();
    figures.add(format!("failed_calls_in_{during}"), failed as f64);
    figures.add(format!("calls_in_{during}"), ended.len() as f64);
    figures.add(format!("p99_ms_in_{during}"), quantile_ms(ended.iter().map(|ended| ended.took), 0.99));
    figures.add(format!("slowest_ms_in_{during}"), quantile_ms(ended.iter().map(|ended| ended.took), 1.0));
    (figures, failures)
}
