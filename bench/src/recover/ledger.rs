//! The orders that were acknowledged, and what the services say became of them.

use std::collections::BTreeMap;

use meshwork::Mesh;
use meshwork_shop::contract::shop::{
    customer::v1::{GetCustomerRequest, customer_service_client::CustomerServiceClient},
    order::v1::{GetOrderRequest, OrderState, order_service_client::OrderServiceClient},
};

use crate::load::{self, Buyer, Error, Placed, PlacedOrder};

/// Acknowledged orders, of which none may be lost. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Ledger(Placed);

impl Ledger {
    /// An order from its beginning until it was seen to be approved; written down as soon as it is acknowledged.
    pub(super) async fn buy(self, mut buyer: Buyer, number: usize) -> Result<(), String> {
        let order = self.0.place(&mut buyer, number).await?;
        buyer.approved(order).await
    }

    /// Orders that have not ended, or are not reserved exactly once.
    pub(super) async fn lost(&self, mesh: &Mesh) -> Result<u64, Error> {
        let mut orders = OrderServiceClient::new(mesh.channel("order"));
        let mut customers = CustomerServiceClient::new(mesh.channel("customer"));
        let (mut unended, mut lines) = (0, BTreeMap::<String, Line>::new());
        for PlacedOrder { id, customer, .. } in self.0.orders() {
            let request = GetOrderRequest { order_id: id.to_string() };
            let order = orders.get_order(request).await.map_err(Error::call("GetOrder"))?.into_inner();
            let line = lines.entry(customer).or_default();
            match order.state() {
                OrderState::Unspecified | OrderState::Pending => unended += 1,
                OrderState::Approved => line.approved += 1,
                OrderState::Rejected | OrderState::Cancelled => {}
            }
        }
        for (customer_id, line) in &mut lines {
            let request = GetCustomerRequest { customer_id: customer_id.clone() };
            let customer = customers.get_customer(request).await.map_err(Error::call("GetCustomer"))?.into_inner();
            line.reserved = load::reserved_orders(&customer);
        }
        Ok(unended + lines.values().map(Line::difference).sum::<u64>())
    }
}

/// Orders of a customer, counted.
#[derive(Clone, Copy, Default)]
struct Line {
    approved: i64,
    reserved: i64,
}

impl Line {
    /// Reservations that are missing, or are there without an approved order.
    fn difference(&self) -> u64 {
        self.approved.abs_diff(self.reserved)
    }
}
