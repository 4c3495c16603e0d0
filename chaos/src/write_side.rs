//! What the order and the customer service remember, asked through the mesh as any client would.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use meshwork_shop::contract::shop::{
    customer::v1::{self as customer, GetCustomerRequest},
    order::v1::{self as order, GetOrderRequest, OrderState},
};
use tonic::Status;

use super::{
    calls::{Calls, request},
    evidence::{Customer, Order},
    reads::{Reads, money},
};

/// Reads at a time.
const AT_A_TIME: usize = 32;

/// The orders of these ids that are there.
pub(super) async fn orders(calls: &Calls, reads: &Reads, ids: Vec<String>) -> Result<Vec<Order>, Status> {
    let read = async |order_id: String| {
        let get = || {
            let (mut client, get) = (calls.order.clone(), GetOrderRequest { order_id: order_id.clone() });
            async move { client.get_order(request(get)).await }
        };
        reads.read("GetOrder", get).await?.map(Order::try_from).transpose()
    };
    let found = stream::iter(ids).map(read).buffer_unordered(AT_A_TIME);
    found.try_filter_map(async |order| Ok(order)).try_collect().await
}

/// Which of these orders have not come to an end, those that are not there included.
pub(super) async fn pending(calls: &Calls, reads: &Reads, ids: Vec<String>) -> Result<Vec<String>, Status> {
    let ended = orders(calls, reads, ids.clone()).await?;
    let ended: std::collections::HashSet<_> =
        ended.into_iter().filter(|order| order.state != OrderState::Pending).map(|order| order.order_id).collect();
    Ok(ids.into_iter().filter(|id| !ended.contains(id)).collect())
}

/// The customers of these ids that are there.
pub(super) async fn customers(calls: &Calls, reads: &Reads, ids: Vec<String>) -> Result<Vec<Customer>, Status> {
    let read = async |customer_id: String| {
        let get = || {
            let (mut client, get) = (calls.customer.clone(), GetCustomerRequest { customer_id: customer_id.clone() });
            async move { client.get_customer(request(get)).await }
        };
        reads.read("GetCustomer", get).await?.map(Customer::try_from).transpose()
    };
    let found = stream::iter(ids).map(read).buffer_unordered(AT_A_TIME);
    found.try_filter_map(async |customer| Ok(customer)).try_collect().await
}

impl TryFrom<order::Order> for Order {
    type Error = Status;

    fn try_from(order: order::Order) -> Result<Self, Status> {
        let (currency, cents) = money(order.total.as_ref())?;
        let (state, reason) = (order.state(), order.rejection_reason());
        Ok(Self { order_id: order.order_id, customer_id: order.customer_id, currency, cents, state, reason })
    }
}

impl TryFrom<customer::Customer> for Customer {
    type Error = Status;

    fn try_from(customer: customer::Customer) -> Result<Self, Status> {
        let (currency, limit) = money(customer.credit_limit.as_ref())?;
        let (_, available) = money(customer.available_credit.as_ref())?;
        Ok(Self { customer_id: customer.customer_id, name: customer.name, currency, limit, available })
    }
}
