//! The rpcs of `shop.query.v1.QueryService`: check the request, wait for its position, read the view.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, TryFutureExt as _, future::try_join};
use meshwork::{
    health::Condition,
    rpc::{Page, Violations},
};
use meshwork_events::{consumer::Past, outbox::PositionToken, store::Database, store_status};
use meshwork_shop::{
    check_id,
    contract::shop::{
        order::v1::OrderState,
        query::v1::{
            GetCustomerHistoryRequest, GetCustomerHistoryResponse, GetOrderRequest, GetProjectionStatusRequest,
            GetProjectionStatusResponse, ListOrdersRequest, ListOrdersResponse, Order, WatchOrdersRequest,
            WatchOrdersResponse, query_service_server::QueryService,
        },
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::{
    Store,
    message::{DOMAIN, projection},
    position::{Sources, check_position_token},
    store::{self, OrderFilter},
    watch::Watches,
};

/// The service over one view.
pub(crate) struct Service {
    database: Database,
    view_id: String,
    sources: Sources,
    watches: Arc<Watches>,
}

impl Service {
    /// A service over the view of `store`, which follows these sources. `draining` ends waits and watches, and so does whatever is
    /// wrong with `serving` for watches.
    pub(crate) fn new(
        store: &Store,
        sources: Vec<(&'static str, Past)>,
        draining: &CancellationToken,
        serving: Condition,
    ) -> Self {
        let database = store.database().clone();
        Self {
            watches: Arc::new(Watches::new(database.clone(), store.decider().hub(), draining.clone(), serving)),
            database,
            view_id: store.outbox().store_id().to_owned(),
            sources: Sources::new(sources, draining.clone()),
        }
    }
}

#[tonic::async_trait]
impl QueryService for Service {
    type WatchOrdersStream = Pin<Box<dyn Stream<Item = Result<WatchOrdersResponse, Status>> + Send>>;

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let order_id = check_id(&mut violations, "order_id", &request.order_id);
        let position = check_position_token(&mut violations, &request.position_token);
        let (order_id, position) = checked(violations, order_id.zip(position))?;

        self.wait_for(position).await?;
        let order = store::order(&*self.database, order_id).await.map_err(|error| store_status(DOMAIN, &error))?;
        let order = order.ok_or_else(|| DOMAIN.error(Code::NotFound, "UNKNOWN_ORDER", "the view has no such order"))?;
        Ok(Response::new(Order::from(&order)))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let customer_id = check_optional_id(&mut violations, "customer_id", &request.customer_id);
        let state = check_state(&mut violations, request.state);
        let filter = customer_id.zip(state).map(|(customer_id, state)| OrderFilter { customer_id, state });
        let page = check_page(&mut violations, filter, request.page_size, &request.page_token);
        let position = check_position_token(&mut violations, &request.position_token);
        let ((filter, page), position) = checked(violations, filter.zip(page).zip(position))?;

        self.wait_for(position).await?;
        let (orders, next_page_token) = self.page(filter, page).await?;
        Ok(Response::new(ListOrdersResponse { orders, next_page_token }))
    }

    async fn get_customer_history(
        &self,
        request: Request<GetCustomerHistoryRequest>,
    ) -> Result<Response<GetCustomerHistoryResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let customer_id = check_id(&mut violations, "customer_id", &request.customer_id);
        let filter = customer_id.map(|id| OrderFilter { customer_id: Some(id), state: None });
        let page = check_page(&mut violations, filter, request.page_size, &request.page_token);
        let position = check_position_token(&mut violations, &request.position_token);
        let known = customer_id.zip(filter.zip(page)).zip(position);
        let ((customer_id, (filter, page)), position) = checked(violations, known)?;

        self.wait_for(position).await?;
        let customer = store::customer(&*self.database, customer_id).map_err(|error| store_status(DOMAIN, &error));
        let (customer, (orders, next_page_token)) = try_join(customer, self.page(filter, page)).await?;
        let customer = customer
            .ok_or_else(|| DOMAIN.error(Code::NotFound, "UNKNOWN_CUSTOMER", "the view has no such customer"))?;
        Ok(Response::new(GetCustomerHistoryResponse { customer: Some(customer.into()), orders, next_page_token }))
    }

    async fn watch_orders(
        &self,
        request: Request<WatchOrdersRequest>,
    ) -> Result<Response<Self::WatchOrdersStream>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let customer_id = check_optional_id(&mut violations, "customer_id", &request.customer_id);
        let position = check_position_token(&mut violations, &request.position_token);
        let (customer_id, position) = checked(violations, customer_id.zip(position))?;

        self.wait_for(position).await?;
        self.sources.check()?;
        Ok(Response::new(Box::pin(self.watches.watch(customer_id))))
    }

    async fn get_projection_status(
        &self,
        request: Request<GetProjectionStatusRequest>,
    ) -> Result<Response<GetProjectionStatusResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let position = check_position_token(&mut violations, &request.position_token);
        let position = checked(violations, position)?;

        self.wait_for(position).await?;
        let projections = self.sources.iter().map(|(name, progress)| projection(name, progress.snapshot())).collect();
        Ok(Response::new(GetProjectionStatusResponse { view_id: self.view_id.clone(), projections }))
    }
}

impl Service {
    async fn wait_for(&self, position: Option<PositionToken>) -> Result<(), Status> {
        match position {
            None => Ok(()),
            Some(token) => self.sources.wait_for(&token).await,
        }
    }

    /// A page of orders and the token of the next. One row more than asked for tells whether there is one.
    async fn page(&self, filter: OrderFilter, page: OrderPage) -> Result<(Vec<Order>, String), Status> {
        let rows = store::orders(&*self.database, filter, page.after, page.size + 1).await;
        let mut rows = rows.map_err(|error| store_status(DOMAIN, &error))?;
        let token = Page::cut(&filter_key(filter), page.size, &mut rows, |row| row.order_id.as_bytes());
        Ok((rows.iter().map(Order::from).collect(), token))
    }
}

/// A page of orders, checked.
#[derive(Clone, Copy, Debug)]
struct OrderPage {
    size: usize,
    after: Option<Uuid>,
}

/// The values of a request whose violations were gathered.
fn checked<T>(violations: Violations, values: Option<T>) -> Result<T, Status> {
    violations.into_result(DOMAIN)?;
    Ok(values.expect("a value is missing only with a violation"))
}

fn check_optional_id(violations: &mut Violations, field: &str, text: &str) -> Option<Option<Uuid>> {
    if text.is_empty() { Some(None) } else { check_id(violations, field, text).map(Some) }
}

/// The outer `None`: it is no state; the inner: any state.
fn check_state(violations: &mut Violations, state: i32) -> Option<Option<OrderState>> {
    let state = violations.check("state", OrderState::try_from(state).map_err(|_| "is not an order state"))?;
    Some(Some(state).filter(|state| *state != OrderState::Unspecified))
}

/// The page, if the filter that its token belongs to is known.
fn check_page(
    violations: &mut Violations,
    filter: Option<OrderFilter>,
    page_size: i32,
    page_token: &str,
) -> Option<OrderPage> {
    let Some(filter) = filter else {
        // The token cannot be judged; the size can.
        Page::parse(&[], page_size, "", violations);
        return None;
    };
    let Page { size, after } = Page::parse(&filter_key(filter), page_size, page_token, violations)?;
    let after = after.map(|key| Uuid::from_slice(&key)).transpose();
    let after = violations.check("page_token", after.map_err(|_| "not a token that this service gave out"))?;
    Some(OrderPage { size, after })
}

/// All of a request that chooses rows, as the owner of its page tokens.
fn filter_key(OrderFilter { customer_id, state }: OrderFilter) -> Vec<u8> {
    let state = state.map_or(0, i32::from).to_be_bytes();
    customer_id.map_or([0; 16], Uuid::into_bytes).into_iter().chain(state).collect()
}

#[cfg(test)]
mod tests;
