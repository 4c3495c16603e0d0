//! A mesh with customers who can afford everything, and the one stream on which their orders are watched.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use meshwork::{
    Mesh,
    channel::Channel,
    contract::shop::{
        customer::v1::{CreateCustomerRequest, customer_service_client::CustomerServiceClient},
        order::v1::{CreateOrderRequest, OrderState, order_service_client::OrderServiceClient},
        query::v1::{WatchOrdersRequest, WatchOrdersResponse, query_service_client::QueryServiceClient},
        r#type::v1::Money,
    },
};
use meshwork_cli::fleet::{self, Fleet, Replicas};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tonic::Streaming;
use uuid::Uuid;

use super::{
    Error,
    arrivals::Arrivals,
    load::{Load, Sample},
};

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
/// How long draining may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// A mesh that takes orders.
pub(super) struct Shop {
    fleet: Fleet,
    /// The load generator's own: it finds and reaches the services as any other process would.
    mesh: Mesh,
    orders: OrderServiceClient<Channel>,
    customers: Arc<[String]>,
    watch: Watch,
}

impl Shop {
    /// Starts a mesh and makes it ready for orders.
    pub(super) async fn open(folder: &Path, replicas: Replicas) -> Result<Self, Error> {
        let fleet = Fleet::start(fleet::Config { replicas, ..fleet::Config::new(folder) }).await?;
        let mesh = Mesh::connect(fleet.registry_url())?;
        let ready = async { Ok::<_, Error>((create_customers(&mesh).await?, Watch::start(&mesh).await?)) };
        let (customers, watch) = within("making the shop ready", OPEN_LIMIT, ready).await??;
        Ok(Self { orders: OrderServiceClient::new(mesh.channel("order")), fleet, mesh, customers, watch })
    }

    /// Drives it with a load.
    pub(super) async fn drive(&self, load: Load) -> Sample {
        let (orders, customers, arrivals) = (self.orders.clone(), self.customers.clone(), self.watch.arrivals.clone());
        let order = move |number: usize| {
            let customer_id = customers[number % customers.len()].clone();
            place(orders.clone(), customer_id, arrivals.clone())
        };
        load.run(order, self.watch.lost()).await
    }

    /// Drains the mesh.
    pub(super) async fn close(self) -> Result<(), Error> {
        let Self { fleet, mesh, watch, .. } = self;
        // The stream would be told to move, find nobody to move to, and warn.
        watch.stop().await;
        let closed = async {
            mesh.close().await;
            fleet.stop().await;
        };
        within("draining the mesh", CLOSE_LIMIT, closed).await
    }
}

/// Creates an order and waits until it was seen in a terminal state, which must be APPROVED.
async fn place(
    mut orders: OrderServiceClient<Channel>,
    customer_id: String,
    arrivals: Arc<Arrivals>,
) -> Result<(), String> {
    let total = Some(usd(PRICE));
    let request = CreateOrderRequest { customer_id, total, request_id: String::new() };
    let order = orders.create_order(request).await.map_err(|status| format!("CreateOrder: {status}"))?.into_inner();
    let order_id = order.order_id.parse().map_err(|_| "CreateOrder: the order's id is no UUID".to_owned())?;
    match arrivals.wait(order_id).await {
        Some(OrderState::Approved) => Ok(()),
        Some(state) => Err(format!("an order ended {}", state.as_str_name())),
        None => Err("the watch was lost".to_owned()),
    }
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
    created.map(Arc::from).map_err(failed("CreateCustomer"))
}

fn usd((units, nanos): (i64, i32)) -> Money {
    Money { currency_code: "USD".to_owned(), units, nanos }
}

fn failed(what: &'static str) -> impl Fn(tonic::Status) -> Error {
    move |status| Error::Shop { what, status: Box::new(status) }
}

async fn within<T>(what: &'static str, limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout(limit, work).await.map_err(|_| Error::Slow { what, limit })
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
        let mut orders = client.watch_orders(request).await.map_err(failed("WatchOrders"))?.into_inner();
        // The first answer shows that the watch stands.
        orders.message().await.map_err(failed("WatchOrders"))?;
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

    /// Ends when the stream does.
    fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
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

fn tell(order: &meshwork::contract::shop::query::v1::Order, arrivals: &Arrivals) {
    match order.state() {
        OrderState::Unspecified | OrderState::Pending => {}
        state @ (OrderState::Approved | OrderState::Rejected | OrderState::Cancelled) => {
            // An id that is none belongs to no worker, whose wait then fails.
            if let Ok(order_id) = order.order_id.parse::<Uuid>() {
                arrivals.seen(order_id, state);
            }
        }
    }
}
