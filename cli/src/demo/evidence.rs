//! What the mesh remembers of the story: orders from the read side, page by page and no staler than the write side, and
//! credit from the customer service.

use std::time::Duration;

use meshwork_shop::{
    Amount,
    contract::shop::{
        customer::v1::GetCustomerRequest,
        order::v1::{GetOrderRequest, OrderState},
        query::v1::ListOrdersRequest,
        r#type::v1::Money,
    },
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::{
    clients::{Clients, request, retry},
    story::Played,
};
use crate::{
    audit::{CreditLine, Promise, Remembered, audit},
    error::Error,
};

/// The most orders that the contract gives in a page.
const PAGE_SIZE: i32 = 1000;
/// How long the credit of cancelled orders may take to come back: the release is an event that customer has yet to read.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Every customer of the story with its orders, once no promise is broken any more, or else as it is when time is up.
pub(super) async fn gather_settled(clients: &Clients, outcome: &Played) -> Result<Vec<CreditLine>, Error> {
    let end = Instant::now() + SETTLE_LIMIT;
    loop {
        let mut credit_lines = Vec::new();
        for customer_id in &outcome.customers {
            let placed = outcome.promises.iter().find(|promise| promise.customer_id == *customer_id);
            credit_lines.push(gather(clients, customer_id, placed).await?);
        }
        if audit(&outcome.promises, &credit_lines).is_empty() || Instant::now() >= end {
            return Ok(credit_lines);
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Tells a lie for the check to find: one approved order was rejected.
///
/// # Errors
/// No order was approved, as in a small story, of which each order asks for more than its customer may spend.
pub(super) fn tamper(credit_lines: &mut [CreditLine]) -> Result<(), Error> {
    let mut orders = credit_lines.iter_mut().flat_map(|line| &mut line.orders);
    let approved = orders.find(|order| order.state == OrderState::Approved).ok_or(Error::NothingToTamper)?;
    approved.state = OrderState::Rejected;
    Ok(())
}

/// One customer. `placed`: any of its orders; all of them are in one partition, so that one position covers them.
async fn gather(clients: &Clients, customer_id: &str, placed: Option<&Promise>) -> Result<CreditLine, Error> {
    let position_token = match placed {
        Some(promise) => position_of_orders(clients, &promise.order_id).await?,
        None => String::new(),
    };
    let orders = orders_of(clients, customer_id, position_token).await?;
    let call = || {
        let (mut client, get) = (clients.customer.clone(), GetCustomerRequest { customer_id: customer_id.to_owned() });
        async move { client.get_customer(request(get)).await }
    };
    let customer = retry(call).await.map_err(Error::call("get a customer"))?;
    Ok(CreditLine {
        customer_id: customer_id.to_owned(),
        limit: cents(customer.credit_limit.as_ref())?,
        available: cents(customer.available_credit.as_ref())?,
        orders,
    })
}

/// How far the write side has come with the customer of this order. Empty if the order is lost, which the audit will tell.
async fn position_of_orders(clients: &Clients, order_id: &str) -> Result<String, Error> {
    let call = || {
        let (mut client, get) = (clients.order.clone(), GetOrderRequest { order_id: order_id.to_owned() });
        async move { client.get_order(request(get)).await }
    };
    match retry(call).await {
        Ok(order) => Ok(order.position_token),
        Err(status) if status.code() == Code::NotFound => Ok(String::new()),
        Err(status) => Err(Error::call("get an order")(status)),
    }
}

async fn orders_of(clients: &Clients, customer_id: &str, position_token: String) -> Result<Vec<Remembered>, Error> {
    let mut orders = Vec::new();
    let mut list = ListOrdersRequest {
        customer_id: customer_id.to_owned(),
        page_size: PAGE_SIZE,
        position_token,
        ..ListOrdersRequest::default()
    };
    loop {
        let call = || {
            let (mut client, list) = (clients.query.clone(), list.clone());
            async move { client.list_orders(request(list)).await }
        };
        let page = retry(call).await.map_err(Error::call("list orders"))?;
        for order in page.orders {
            let (cents, state) = (cents(order.total.as_ref())?, order.state());
            orders.push(Remembered { order_id: order.order_id, cents, state });
        }
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            return Ok(orders);
        }
    }
}

fn cents(money: Option<&Money>) -> Result<i64, Error> {
    let missing = || Status::internal("an answer without an amount");
    let amount = money
        .ok_or_else(missing)
        .and_then(|money| Amount::try_from(money).map_err(|e| Status::internal(e.to_string())));
    Ok(amount.map_err(Error::call("read an amount"))?.minor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tampered_order_is_found_and_a_story_without_an_approved_one_is_not_called_broken() {
        for state in [OrderState::Approved, OrderState::Rejected, OrderState::Cancelled] {
            let promise = Promise { order_id: "o".into(), customer_id: "c".into(), cents: 5, cancelled: false };
            let available = if state == OrderState::Approved { 5 } else { 10 };
            let orders = vec![Remembered { order_id: "o".into(), cents: 5, state }];
            let mut lines = [CreditLine { customer_id: "c".into(), limit: 10, available, orders }];
            assert_eq!(audit(std::slice::from_ref(&promise), &lines), [], "honest");
            let tampered = tamper(&mut lines).map_err(|error| error.to_string());
            let broken = audit(std::slice::from_ref(&promise), &lines).len();
            if state == OrderState::Approved {
                assert_eq!((tampered, broken), (Ok(()), 1));
            } else {
                let needs = "--tamper needs an approved order, and there is none: give more --orders".to_owned();
                assert_eq!((tampered, broken), (Err(needs), 0), "{state:?}");
            }
        }
    }
}
