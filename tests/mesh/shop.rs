//! A mesh in a temporary folder and the calls that the tests make; the cases hold the data.

use std::{path::Path, time::Duration};

use meshwork::channel::Channel;
use meshwork_cli::fleet::{Config, Databases, Fleet, Instance, Replicas, Views};
use meshwork_fixture::{Engine, Place};
use meshwork_shop::contract::shop::{
    customer::v1::{
        CreateCustomerRequest, Customer, GetCustomerRequest, customer_service_client::CustomerServiceClient,
    },
    order::v1::{
        CancelOrderRequest, CreateOrderRequest, GetOrderRequest, Order, OrderState, WatchOrderRequest,
        order_service_client::OrderServiceClient,
    },
    query::v1::{
        GetOrderRequest as GetViewedOrderRequest, Order as ViewedOrder, query_service_client::QueryServiceClient,
    },
    r#type::v1::Money,
};
use tempfile::TempDir;
use tonic::{Code, Status};

/// Far beyond what any step takes; only a defect gets here.
pub(crate) const STUCK: Duration = Duration::from_secs(30);

pub(crate) struct Shop {
    pub(crate) fleet: Fleet,
    pub(crate) customers: CustomerServiceClient<Channel>,
    pub(crate) orders: OrderServiceClient<Channel>,
    pub(crate) queries: QueryServiceClient<Channel>,
    /// Outlives the fleet, and a second one on the same data.
    pub(crate) home: Home,
}

/// Where a shop has its data.
pub(crate) struct Home {
    folder: TempDir,
    databases: Databases,
    /// What the databases are named after, and deleted with.
    place: Place,
}

impl Home {
    pub(crate) fn new(engine: &Engine) -> Self {
        let place = engine.place();
        let databases = match engine {
            Engine::Sqlite => Databases::Sqlite,
            Engine::Postgres(_) => {
                Databases::Postgres { url: place.url.parse().expect("a database"), views: Views::Private }
            }
        };
        Self { folder: TempDir::new().expect("a temporary folder"), databases, place }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What its databases are named after.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where a service, not query, has its data.
    pub(crate) fn database_url(&self, service: &str) -> String {
        match &self.databases {
            Databases::Sqlite => format!("sqlite://{}", self.folder().join(format!("{service}.db")).display()),
            Databases::Postgres { .. } => {
                let (name, parameters) = self.place.url.split_once('?').unwrap_or((&self.place.url, ""));
                format!("{name}_{service}?{parameters}")
            }
        }
    }
}

impl Shop {
    /// A shop with this many instances of each service.
    pub(crate) async fn open(engine: &Engine, replicas: usize) -> Self {
        Self::open_with(engine, replicas, |_| {}).await
    }

    pub(crate) async fn open_with(engine: &Engine, replicas: usize, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::open_in(Home::new(engine), replicas, adjust).await
    }

    pub(crate) async fn open_in(home: Home, replicas: usize, adjust: impl FnOnce(&mut Config)) -> Self {
        let databases = home.databases.clone();
        let mut config = Config { replicas: Replicas::all(replicas), databases, ..Config::new(home.folder()) };
        adjust(&mut config);
        let fleet = Fleet::start(config).await.expect("the mesh starts");
        let mesh = fleet.mesh();
        Self {
            customers: CustomerServiceClient::new(mesh.channel("customer")),
            orders: OrderServiceClient::new(mesh.channel("order")),
            queries: QueryServiceClient::new(mesh.channel("query")),
            fleet,
            home,
        }
    }

    pub(crate) async fn customer(&self, limit: Money) -> Customer {
        let request =
            CreateCustomerRequest { name: "Ada".into(), credit_limit: Some(limit), request_id: String::new() };
        self.customers.clone().create_customer(request).await.expect("created").into_inner()
    }

    pub(crate) async fn get_customer(&self, customer_id: &str) -> Customer {
        let request = GetCustomerRequest { customer_id: customer_id.into() };
        self.customers.clone().get_customer(request).await.expect("found").into_inner()
    }

    /// Creates an order, without waiting for its fate.
    pub(crate) async fn order(&self, customer_id: &str, total: Money) -> Order {
        let request =
            CreateOrderRequest { customer_id: customer_id.into(), total: Some(total), request_id: String::new() };
        self.orders.clone().create_order(request).await.expect("created").into_inner()
    }

    pub(crate) async fn get_order(&self, order_id: &str) -> Order {
        let request = GetOrderRequest { order_id: order_id.into() };
        self.orders.clone().get_order(request).await.expect("found").into_inner()
    }

    pub(crate) async fn cancel(&self, order_id: &str) -> Result<Order, Status> {
        let request = CancelOrderRequest { order_id: order_id.into() };
        self.orders.clone().cancel_order(request).await.map(tonic::Response::into_inner)
    }

    /// Creates an order and waits until it is settled.
    pub(crate) async fn settled_order(&self, customer_id: &str, total: Money) -> Order {
        let order = self.order(customer_id, total).await;
        assert_eq!(order.state(), OrderState::Pending, "answered at once");
        self.settled(&order.order_id).await
    }

    /// Watches an order until it is settled; a watch that is cut off is opened again.
    pub(crate) async fn settled(&self, order_id: &str) -> Order {
        let watching = async {
            loop {
                match self.watch_to_the_end(order_id).await {
                    Ok(order) if is_settled(&order) => return order,
                    Ok(order) => panic!("the watch ended at {order:?}"),
                    Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
                    Err(status) => panic!("{status}"),
                }
            }
        };
        tokio::time::timeout(STUCK, watching).await.expect("settled in time")
    }

    async fn watch_to_the_end(&self, order_id: &str) -> Result<Order, Status> {
        let request = WatchOrderRequest { order_id: order_id.into() };
        let mut watch = self.orders.clone().watch_order(request).await?.into_inner();
        let mut last = None;
        while let Some(order) = watch.message().await? {
            last = Some(order);
        }
        last.ok_or_else(|| Status::internal("a watch begins with the order as it is"))
    }

    /// The instances of a service that run at the moment.
    pub(crate) fn instances(&self, service: &str) -> Vec<Instance> {
        self.fleet.instances().into_iter().filter(|instance| instance.service == service).collect()
    }

    /// What the view shows of an order, once it is as new as this token.
    pub(crate) async fn viewed(&self, order_id: &str, position_token: &str) -> Result<ViewedOrder, Status> {
        let request =
            GetViewedOrderRequest { order_id: order_id.to_owned(), position_token: position_token.to_owned() };
        self.queries.clone().get_order(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until a customer has this much credit left.
    pub(crate) async fn wait_for_credit(&self, customer_id: &str, available: &Money) {
        let waiting = async {
            while self.get_customer(customer_id).await.available_credit.as_ref() != Some(available) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(STUCK, waiting).await.expect("the credit is there in time");
    }
}

pub(crate) fn is_settled(order: &Order) -> bool {
    !matches!(order.state(), OrderState::Pending | OrderState::Unspecified)
}

/// US dollars, in cents.
pub(crate) fn usd(cents: i64) -> Money {
    Money {
        currency_code: "USD".into(),
        units: cents / 100,
        nanos: i32::try_from(cents % 100).expect("cents") * 10_000_000,
    }
}
