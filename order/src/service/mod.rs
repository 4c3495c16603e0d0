//! The rpcs: a checked request becomes an input or a read, and what comes back becomes the contract's message.

mod message;
mod refusal;
mod watch;

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use meshwork::{health::Condition, rpc::Violations};
use meshwork_events::{store_status, write_status, writer::Applied};
use meshwork_shop::{
    RequestKey, check_id, check_money, check_request_id,
    contract::shop::order::v1::{
        CancelOrderRequest, CreateOrderRequest, GetOrderRequest, Order as OrderMessage, WatchOrderRequest,
        order_service_server::OrderService,
    },
    now_ms,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    Store,
    domain::{Input, Refusal, Reply},
    names::DOMAIN,
    store,
};
use message::message;
use refusal::refused;

/// The rpcs of one instance.
pub(crate) struct Rpcs {
    store: Store,
    saga_deadline: Duration,
    draining: CancellationToken,
    serving: Condition,
}

impl Rpcs {
    pub(crate) fn new(store: Store, saga_deadline: Duration, draining: CancellationToken, serving: Condition) -> Self {
        Self { store, saga_deadline, draining, serving }
    }

    async fn write(&self, input: Input) -> Result<Response<OrderMessage>, Status> {
        let applied = self.store.writer().submit(input).await;
        match applied.map_err(|error| write_status(DOMAIN, error, refused))? {
            Applied { reply: Reply::Order(order), point: Some(point) } => {
                Ok(Response::new(message(&self.store, &order, point)))
            }
            // Nothing happened, so what there is tells where.
            Applied { reply: Reply::Order(order), point: None } => self.read(order.id).await,
            Applied { reply: Reply::Existing(id), .. } => self.read(id).await,
            Applied { reply: Reply::Settled, .. } => unreachable!("only consumed events are settled without an answer"),
        }
    }

    async fn read(&self, id: Uuid) -> Result<Response<OrderMessage>, Status> {
        let found = store::get(self.store.database(), id).await.map_err(|error| store_status(DOMAIN, &error))?;
        let (order, point) = found.ok_or_else(|| refused(&Refusal::UnknownOrder(id)))?;
        Ok(Response::new(message(&self.store, &order, point)))
    }
}

#[tonic::async_trait]
impl OrderService for Rpcs {
    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<OrderMessage, Status>> + Send>>;

    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<OrderMessage>, Status> {
        self.write(create_input(&request.into_inner(), now_ms(), self.saga_deadline)?).await
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<OrderMessage>, Status> {
        self.read(order_id(&request.into_inner().order_id)?).await
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> Result<Response<OrderMessage>, Status> {
        let order_id = order_id(&request.into_inner().order_id)?;
        self.write(Input::CancelOrder { order_id, now_ms: now_ms() }).await
    }

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let order_id = order_id(&request.into_inner().order_id)?;
        let stream = watch::open(self.store.clone(), order_id, self.draining.clone(), self.serving.clone()).await?;
        Ok(Response::new(Box::pin(stream)))
    }
}

fn create_input(request: &CreateOrderRequest, now_ms: i64, saga_deadline: Duration) -> Result<Input, Status> {
    let mut violations = Violations::default();
    let customer_id = check_id(&mut violations, "customer_id", &request.customer_id);
    let total = check_money(&mut violations, "total", request.total.as_ref());
    if total.is_some_and(|total| total.minor() == 0) {
        violations.add("total", "must be more than 0");
    }
    let request_id = check_request_id(&mut violations, &request.request_id);
    violations.into_result(DOMAIN)?;
    let (customer_id, total) = (customer_id.expect("no violations"), total.expect("no violations"));
    let canonical = CreateOrderRequest {
        customer_id: customer_id.to_string(),
        total: Some(total.into()),
        request_id: String::new(),
    };
    let request = request_id.expect("no violations").map(|id| RequestKey::new(id, &canonical));
    let deadline_ms = now_ms.saturating_add(i64::try_from(saga_deadline.as_millis()).unwrap_or(i64::MAX));
    Ok(Input::CreateOrder { order_id: meshwork::id::new_id(), customer_id, total, request, now_ms, deadline_ms })
}

fn order_id(text: &str) -> Result<Uuid, Status> {
    let mut violations = Violations::default();
    let id = check_id(&mut violations, "order_id", text);
    violations.into_result(DOMAIN)?;
    Ok(id.expect("no violations"))
}

#[cfg(test)]
mod tests;
