//! The readers: a closed loop of GetOrder and ListOrders in turn, over all query instances.

use std::{sync::Arc, time::Duration};

use meshwork::{Mesh, channel::Channel};
use meshwork_harness::report::Failures;
use meshwork_shop::contract::shop::query::v1::{
    GetOrderRequest, ListOrdersRequest, query_service_client::QueryServiceClient,
};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::load::Buyer;

/// Orders of a page: what fits a screen.
const PAGE_SIZE: i32 = 10;

/// What the readers have done.
#[derive(Default)]
pub(super) struct Reads {
    /// Reads that were answered.
    pub(super) count: u64,
    /// What failed.
    pub(super) failures: Failures,
}

/// Reads for as long as `window`, with `readers` at a time: orders of `orders`, and pages of the buyer's customers.
pub(super) async fn read(mesh: &Mesh, buyer: &Buyer, orders: &[Uuid], readers: usize, window: Duration) -> Reads {
    let until = Instant::now() + window;
    let orders: Arc<[Uuid]> = orders.into();
    let mut working = JoinSet::new();
    for reader in 0..readers {
        let client = QueryServiceClient::new(mesh.channel("query"));
        let numbers = (reader..).step_by(readers);
        working.spawn(work(client, buyer.clone(), orders.clone(), numbers, until));
    }
    let mut all = Reads::default();
    while let Some(reads) = working.join_next().await {
        match reads {
            Ok(reads) => {
                all.count += reads.count;
                all.failures.merge(reads.failures);
            }
            Err(panic) => all.failures.add(format!("a reader panicked: {panic}")),
        }
    }
    all
}

async fn work(
    mut client: QueryServiceClient<Channel>,
    buyer: Buyer,
    orders: Arc<[Uuid]>,
    numbers: impl Iterator<Item = usize>,
    until: Instant,
) -> Reads {
    let mut reads = Reads::default();
    for number in numbers {
        let answer = match number % 2 {
            0 => get(&mut client, orders[number % orders.len()]).await,
            _ => list(&mut client, buyer.customer(number)).await,
        };
        if let Err(status) = answer {
            // The figures are void already.
            reads.failures.add(format!("a read: {status}"));
            break;
        }
        if Instant::now() >= until {
            break;
        }
        reads.count += 1;
    }
    reads
}

async fn get(client: &mut QueryServiceClient<Channel>, order: Uuid) -> Result<(), tonic::Status> {
    let request = GetOrderRequest { order_id: order.to_string(), position_token: String::new() };
    client.get_order(request).await.map(drop)
}

async fn list(client: &mut QueryServiceClient<Channel>, customer_id: &str) -> Result<(), tonic::Status> {
    let customer_id = customer_id.to_owned();
    let request = ListOrdersRequest { customer_id, page_size: PAGE_SIZE, ..ListOrdersRequest::default() };
    client.list_orders(request).await.map(drop)
}
