//! A call that is cut off, against an order service that fails on the way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use meshwork::rpc::Domain;
use meshwork_events::outbox::{LogPoint, Position};
use meshwork_shop::{
    Amount, Currency,
    contract::shop::order::v1::{
        CancelOrderRequest, CreateOrderRequest, Order, WatchOrderRequest,
        order_service_server::{OrderService, OrderServiceServer},
    },
};
use tonic::{Code, Request, Response};

use super::*;

/// Has lost every order, and is unreachable after this number of questions.
#[derive(Clone, Default)]
struct Orders {
    asked: Arc<AtomicUsize>,
    away_after: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl OrderService for Orders {
    type WatchOrderStream = Pin<Box<dyn futures_util::Stream<Item = Result<Order, Status>> + Send>>;

    async fn create_order(&self, _: Request<CreateOrderRequest>) -> Result<Response<Order>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        if self.asked.fetch_add(1, SeqCst) >= self.away_after.load(SeqCst) {
            return Err(Status::unavailable("away"));
        }
        Err(Domain::new("order.shop").error(Code::NotFound, UNKNOWN_ORDER, "it is lost"))
    }

    async fn cancel_order(&self, _: Request<CancelOrderRequest>) -> Result<Response<Order>, Status> {
        Err(Status::unimplemented("never asked"))
    }

    async fn watch_order(&self, _: Request<WatchOrderRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("never asked"))
    }
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_gone_on_with_where_it_was_and_counts_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("customer.db").display());
    let store = crate::open(&url).await.expect("a store");
    let usd = |cents| Amount::new(cents, Currency::from_code("USD").expect("known")).expect("not negative");
    let (customer_id, now_ms) = (Uuid::now_v7(), now_ms());
    let limit = usd(1_000_000);
    let customer = Input::CreateCustomer { id: customer_id, name: "Ada".into(), limit, request: None, now_ms };
    store.writer().submit(customer).await.expect("created");
    let count = PAGE + 100;
    let reserve = (0..count).map(|_| {
        let order_id = Uuid::now_v7();
        store.writer().submit(Input::OrderCreated { order_id, customer_id, total: usd(1), now_ms })
    });
    futures_util::future::try_join_all(reserve).await.expect("reserved");

    let orders = Orders::default();
    orders.away_after.store(PAGE + 50, SeqCst);
    let client = OrderServiceClient::new(OrderServiceServer::new(orders.clone()));
    let undo = LostOrders::new(store.clone(), client);
    let partition = partition_of(customer_id);
    let at = |position| LogPoint { at: Position { partition, position }, event_id: None };
    let lost = Lost::to_count(vec![Fork { read: at(9), common: at(0) }]);

    let cut = undo.undo(&lost).await.expect_err("the order service went away");
    assert_eq!(cut.code(), Code::Unavailable);
    let before = orders.asked.swap(0, SeqCst);
    assert!(before >= PAGE + 50, "{before}");
    orders.away_after.store(usize::MAX, SeqCst);
    let undone = undo.undo(&lost).await.expect("it is back");
    assert_eq!(orders.asked.swap(0, SeqCst), count - PAGE, "a page that was answered is not asked after again");
    assert_eq!(undone.effects[0].1, count as u64);

    let other = Lost::to_count(vec![Fork { read: at(8), common: at(0) }]);
    undo.undo(&other).await.expect("asked anew");
    assert_eq!(orders.asked.load(SeqCst), count, "what was cut off was another question");
    store.close().await;
}
