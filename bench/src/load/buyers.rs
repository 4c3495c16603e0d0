//! Customers who can afford everything, their orders, and the one stream on which these are watched.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use meshwork::{Mesh, channel::Channel};
use meshwork_shop::{
    Amount,
    contract::shop::{
        customer::v1::{CreateCustomerRequest, Customer, customer_service_client::CustomerServiceClient},
        order::v1::{CreateOrderRequest, OrderState, order_service_client::OrderServiceClient},
        query::v1::{Order, WatchOrdersRequest, WatchOrdersResponse, query_service_client::QueryServiceClient},
        r#type::v1::Money,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::Streaming;
use uuid::Uuid;

use super::{Error, arrivals::Arrivals, within};

/// Enough for orders to spread over all partitions, and to seldom meet at one credit line.
const CUSTOMERS: usize = 1_000;
/// Customers that are created at once.
const CREATING: usize = 64;
/// More than any run can spend.
const CREDIT_LIMIT: i64 = 1_000_000_000_000;
/// A usual price, in units and billionths.
const PRICE: (i64, i32) = (12, 340_000_000);
/// How long the customers and the watch may take; normally a fraction of a second.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Customers of a mesh, and the watch of their orders.
pub(crate) struct Buyers {
    buyer: Buyer,
    watch: Watch,
}

/// Places orders for any of the customers; clones share everything.
#[derive(Clone)]
pub(crate) struct Buyer {
    client: OrderServiceClient<Channel>,
    customers: Arc<[String]>,
    arrivals: Arc<Arrivals>,
}

impl Buyers {
    /// Creates the customers, and begins to watch.
    pub(crate) async fn open(mesh: &Mesh) -> Result<Self, Error> {
        let ready = async { Ok::<_, Error>((create_customers(mesh).await?, Watch::start(mesh).await?)) };
        let (customers, watch) = within("making the shop ready", OPEN_LIMIT, ready).await??;
        let client = OrderServiceClient::new(mesh.channel("order"));
        Ok(Self { buyer: Buyer { client, customers, arrivals: watch.arrivals.clone() }, watch })
    }

    /// The handle that places orders.
    pub(crate) fn buyer(&self) -> Buyer {
        self.buyer.clone()
    }

    /// Ends when the watch does: no order is seen to end any more.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mut alive = self.watch.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// Ends the watch, before its stream would be asked to move, find no instance to move to, and warn.
    pub(crate) async fn close(self) {
        self.watch.stop().await;
    }
}

impl Buyer {
    /// The customer of the nth order.
    pub(crate) fn customer(&self, number: usize) -> &str {
        &self.customers[number % self.customers.len()]
    }

    /// An order from its beginning until it was seen in a terminal state, which must be APPROVED.
    pub(crate) async fn buy(mut self, number: usize) -> Result<(), String> {
        let order_id = self.place(number).await?;
        self.approved(order_id).await
    }

    /// Waits until an order was seen in a terminal state, which must be APPROVED.
    pub(crate) async fn approved(&self, order_id: Uuid) -> Result<(), String> {
        match self.arrivals.wait(order_id).await {
            Some(OrderState::Approved) => Ok(()),
            Some(state) => Err(format!("an order ended {}", state.as_str_name())),
            None => Err("the watch was lost".to_owned()),
        }
    }

    /// Creates an order.
    pub(crate) async fn place(&mut self, number: usize) -> Result<Uuid, String> {
        let customer_id = self.customer(number).to_owned();
        let request = CreateOrderRequest { customer_id, total: Some(usd(PRICE)), request_id: String::new() };
        let order = self.client.create_order(request).await.map_err(|status| format!("CreateOrder: {status}"))?;
        order.into_inner().order_id.parse().map_err(|_| "CreateOrder: the order's id is no UUID".to_owned())
    }
}

/// How many orders the customer service holds credit for.
pub(crate) fn reserved_orders(customer: &Customer) -> i64 {
    let cents = |money: Option<&Money>| money.and_then(|money| Amount::try_from(money).ok()).map_or(0, Amount::minor);
    let reserved = cents(customer.credit_limit.as_ref()) - cents(customer.available_credit.as_ref());
    reserved / cents(Some(&usd(PRICE)))
}

async fn create_customers(mesh: &Mesh) -> Result<Arc<[String]>, Error> {
    let client = CustomerServiceClient::new(mesh.channel("customer"));
    let create = |number| {
        let mut client = client.clone();
        let credit_limit = Some(usd((CREDIT_LIMIT, 0)));
        let request = CreateCustomerRequest { name: format!("customer {number}"), credit_limit, ..Default::default() };
        async move { Ok(client.create_customer(request).await?.into_inner().customer_id) }
    };
    let created: Result<Vec<_>, tonic::Status> =
        stream::iter((1..=CUSTOMERS).map(create)).buffer_unordered(CREATING).try_collect().await;
    created.map(Arc::from).map_err(Error::call("CreateCustomer"))
}

fn usd((units, nanos): (i64, i32)) -> Money {
    Money { currency_code: "USD".to_owned(), units, nanos }
}

/// The one stream on which all orders are watched, and the task that reads it.
struct Watch {
    arrivals: Arc<Arrivals>,
    /// Closed when the stream has ended.
    alive: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch; what happens from now on is seen.
    async fn start(mesh: &Mesh) -> Result<Self, Error> {
        let mut client = QueryServiceClient::new(mesh.channel("query"));
        let request = WatchOrdersRequest::default();
        let mut orders = client.watch_orders(request).await.map_err(Error::call("WatchOrders"))?.into_inner();
        // The first answer shows that the watch is established.
        orders.message().await.map_err(Error::call("WatchOrders"))?;
        let arrivals = Arc::new(Arrivals::new());
        let (reading, alive) = watch::channel(());
        let task = tokio::spawn({
            let arrivals = arrivals.clone();
            async move {
                read(orders, &arrivals).await;
                drop(reading);
                arrivals.give_up();
            }
        });
        Ok(Self { arrivals, alive, task })
    }

    async fn stop(mut self) {
        self.task.abort();
        // It was aborted, or has ended.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut stream: Streaming<WatchOrdersResponse>, arrivals: &Arrivals) {
    loop {
        match stream.message().await {
            Ok(Some(step)) => step.orders.iter().for_each(|order| tell(order, arrivals)),
            Ok(None) => return eprintln!("the watch has ended"),
            Err(status) => return eprintln!("the watch has ended: {status}"),
        }
    }
}

fn tell(order: &Order, arrivals: &Arrivals) {
    match order.state() {
        OrderState::Unspecified | OrderState::Pending => {}
        state @ (OrderState::Approved | OrderState::Rejected | OrderState::Cancelled) => {
            // An invalid id belongs to no worker, whose wait then fails.
            if let Ok(order_id) = order.order_id.parse::<Uuid>() {
                arrivals.seen(order_id, state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_orders_are_what_is_missing_of_the_limit() {
        let customer = |available| Customer {
            credit_limit: Some(usd((100, 0))),
            available_credit: Some(usd(available)),
            ..Customer::default()
        };
        let left = [(100, 0), (87, 660_000_000), (75, 320_000_000)];
        assert_eq!(left.map(|available| reserved_orders(&customer(available))), [0, 1, 2]);
    }
}
