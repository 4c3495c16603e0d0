//! What one instance of query shows, asked at its own address: the mesh would ask any of them.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use meshwork_cli::direct::Transport;
use meshwork_shop::contract::shop::query::v1::{
    self as query, GetCustomerHistoryRequest, GetOrderRequest, ListOrdersRequest,
    query_service_client::QueryServiceClient,
};
use tonic::Status;

use super::{
    calls::request,
    evidence::{Customer, LostToken, Order, View},
    load::is_position_lost,
    reads::{Reads, money},
};

/// The most orders that the contract gives in a page.
const PAGE_SIZE: i32 = 1000;
/// Reads at a time.
const AT_A_TIME: usize = 16;

/// All orders, and the customers of these ids.
pub(super) async fn view(
    client: &QueryServiceClient<Transport>,
    reads: &Reads,
    name: &str,
    customers: &[String],
) -> Result<View, Status> {
    let orders = orders(client, reads).await?;
    let customers = customers_of(client, reads, customers).await?;
    Ok(View { name: name.to_owned(), orders, customers })
}

/// What is answered to the position tokens of orders that a restore has lost, which are given with their ids.
pub(super) async fn lost_tokens(
    client: &QueryServiceClient<Transport>,
    name: &str,
    lost: &[(String, String)],
) -> Vec<LostToken> {
    let ask = async |(order_id, position_token): &(String, String)| {
        let (mut client, order_id) = (client.clone(), order_id.clone());
        let get = GetOrderRequest { order_id: order_id.clone(), position_token: position_token.clone() };
        let answer = match client.get_order(request(get)).await {
            Ok(_) => "an order".to_owned(),
            Err(status) if is_position_lost(&status) => "POSITION_LOST".to_owned(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        LostToken { view: name.to_owned(), order_id, answer }
    };
    stream::iter(lost).map(ask).buffer_unordered(AT_A_TIME).collect().await
}

async fn orders(client: &QueryServiceClient<Transport>, reads: &Reads) -> Result<Vec<Order>, Status> {
    let (mut orders, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = || {
            let (mut client, page_token) = (client.clone(), page_token.clone());
            let list = ListOrdersRequest { page_size: PAGE_SIZE, page_token, ..Default::default() };
            async move { client.list_orders(request(list)).await }
        };
        let page = reads.read("ListOrders", list).await?.unwrap_or_default();
        for order in page.orders {
            orders.push(order.try_into()?);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(orders);
        }
    }
}

async fn customers_of(
    client: &QueryServiceClient<Transport>,
    reads: &Reads,
    ids: &[String],
) -> Result<Vec<Customer>, Status> {
    let read = async |customer_id: &String| {
        let get = || {
            let (mut client, customer_id) = (client.clone(), customer_id.clone());
            let get = GetCustomerHistoryRequest { customer_id, page_size: 1, ..Default::default() };
            async move { client.get_customer_history(request(get)).await }
        };
        let history = reads.read("GetCustomerHistory", get).await?;
        history.and_then(|history| history.customer).map(Customer::try_from).transpose()
    };
    let found = stream::iter(ids).map(read).buffer_unordered(AT_A_TIME);
    found.try_filter_map(async |customer| Ok(customer)).try_collect().await
}

impl TryFrom<query::Order> for Order {
    type Error = Status;

    fn try_from(order: query::Order) -> Result<Self, Status> {
        let (currency, cents) = money(order.total.as_ref())?;
        let (state, reason) = (order.state(), order.rejection_reason());
        Ok(Self { order_id: order.order_id, customer_id: order.customer_id, currency, cents, state, reason })
    }
}

impl TryFrom<query::Customer> for Customer {
    type Error = Status;

    fn try_from(customer: query::Customer) -> Result<Self, Status> {
        let (currency, limit) = money(customer.credit_limit.as_ref())?;
        let (_, available) = money(customer.available_credit.as_ref())?;
        Ok(Self { customer_id: customer.customer_id, name: customer.name, currency, limit, available })
    }
}
