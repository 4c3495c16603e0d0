//! When each view shows an order for the first time, seen on a `WatchOrders` stream of every query instance.

use std::{collections::HashMap, sync::Arc, time::Duration};

use meshwork_harness::{
    direct,
    report::quantile_ms,
    shop_processes::{Instance, ShopProcesses},
};
use meshwork_shop::contract::shop::query::v1::{WatchOrdersRequest, WatchOrdersResponse};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Streaming;
use uuid::Uuid;

use crate::load::{Error, within};

/// How long a view may take to be watched; normally a few milliseconds.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// When orders were seen first, for one view.
type Sightings = Arc<Mutex<HashMap<Uuid, Instant>>>;

/// A watch of every view; dropped, they end.
pub(super) struct Views {
    sightings: Vec<Sightings>,
    _watches: JoinSet<()>,
}

impl Views {
    /// Watches every query instance of a shop.
    pub(super) async fn watch(shop: &ShopProcesses) -> Result<Self, Error> {
        let (mut sightings, mut watches) = (Vec::new(), JoinSet::new());
        for instance in shop.instances("query") {
            let stream = within("watching every view", OPEN_LIMIT, watch(instance)).await??;
            let seen = Sightings::default();
            watches.spawn(read(stream, seen.clone()));
            sightings.push(seen);
        }
        Ok(Self { sightings, _watches: watches })
    }

    /// Waits until every view shows every one of `orders`.
    pub(super) async fn show(&self, orders: &[(Uuid, Instant)], limit: Duration) -> Result<(), Error> {
        let shown = async {
            while !self.lags(orders).flatten().all(|lag| lag.is_some()) {
                sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        within("showing the last orders in every view", limit, shown).await
    }

    /// How long after its time an order is seen, 99th percentile of those that are, in the worst view.
    pub(super) fn lag_p99_ms(&self, orders: &[(Uuid, Instant)]) -> f64 {
        self.lags(orders).map(|lags| quantile_ms(lags.into_iter().flatten(), 0.99)).fold(0.0, f64::max)
    }

    /// For each view, how long after its time each of `orders` was seen; before it is at once. `None`: not yet.
    fn lags(&self, orders: &[(Uuid, Instant)]) -> impl Iterator<Item = Vec<Option<Duration>>> {
        self.sightings.iter().map(|sightings| {
            let seen = sightings.lock();
            orders.iter().map(|(order, at)| seen.get(order).map(|seen| seen.saturating_duration_since(*at))).collect()
        })
    }
}

async fn watch(instance: &Instance) -> Result<Streaming<WatchOrdersResponse>, Error> {
    let reach = |source| Error::Reach { name: instance.name().to_owned(), source };
    let mut client = direct::query(instance, None).await.map_err(reach)?;
    let answer = client.watch_orders(WatchOrdersRequest::default()).await.map_err(Error::call("WatchOrders"))?;
    let mut stream = answer.into_inner();
    // The first answer shows that the watch stands.
    stream.message().await.map_err(Error::call("WatchOrders"))?;
    Ok(stream)
}

async fn read(mut stream: Streaming<WatchOrdersResponse>, sightings: Sightings) {
    while let Ok(Some(step)) = stream.message().await {
        let now = Instant::now();
        let mut seen = sightings.lock();
        for order in step.orders {
            if let Ok(order) = order.order_id.parse() {
                seen.entry(order).or_insert(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_that_of_the_worst_view_and_an_order_that_was_seen_before_its_answer_has_none() {
        let (at, ms) = (Instant::now(), Duration::from_millis);
        let orders: Vec<_> = (0..2).map(|order| (Uuid::from_u128(order), at + ms(5))).collect();
        let view = |seen: [u64; 2]| {
            let seen = orders.iter().zip(seen).map(|((order, _), seen)| (*order, at + ms(seen))).collect();
            Arc::new(Mutex::new(seen))
        };
        let views = Views { sightings: vec![view([0, 1]), view([4, 12])], _watches: JoinSet::new() };
        assert_eq!(views.lag_p99_ms(&orders), 7.0);
        assert!(views.show(&orders, ms(1)).await.is_ok());
        assert!(views.show(&[(Uuid::from_u128(9), at)], ms(1)).await.is_err());
    }
}
