//! How orders end, as a watch of the read side sees it, with a look at the write side for what the watch has missed.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use meshwork::channel::Channel;
use meshwork_shop::contract::shop::{
    order::v1::OrderState,
    query::v1::{WatchOrdersRequest, query_service_client::QueryServiceClient},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::Status;

/// After this long without news of an order, its state is looked up; news takes milliseconds.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// After this long an order has no end: twice its saga's default deadline.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Before the watch is opened again, in case the next instance refuses it at once.
const REJOIN_AFTER: Duration = Duration::from_millis(50);
/// How long the first watch may take to be established.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// A state of an order, and when it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) state: OrderState,
    pub(super) at: Instant,
}

/// What was seen of the orders of some customers.
#[derive(Debug)]
pub(super) struct Tracker {
    customers: HashSet<String>,
    /// By order id. An entry is made by whichever comes first: the watch, or the task that waits for the order.
    orders: Mutex<HashMap<String, watch::Sender<Seen>>>,
    /// How often the watch was opened; what happened while it was closed was not seen.
    joined: watch::Sender<u64>,
}

impl Tracker {
    /// Knows nothing yet. Orders of other customers are none of its business.
    pub(super) fn new(customers: impl IntoIterator<Item = String>) -> Arc<Self> {
        Arc::new(Self {
            customers: customers.into_iter().collect(),
            orders: Mutex::default(),
            joined: watch::Sender::new(0),
        })
    }

    /// Follows the read side, from one instance to the next, until it is dropped.
    pub(super) async fn follow(self: Arc<Self>, mut client: QueryServiceClient<Channel>) {
        loop {
            if let Ok(answer) = client.watch_orders(WatchOrdersRequest::default()).await {
                let mut stream = answer.into_inner();
                // The first message has no orders: it says that the watch is established.
                if let Ok(Some(_)) = stream.message().await {
                    self.joined.send_modify(|joined| *joined += 1);
                }
                while let Ok(Some(step)) = stream.message().await {
                    for order in step.orders.iter().filter(|order| self.customers.contains(&order.customer_id)) {
                        self.saw(&order.order_id, order.state());
                    }
                }
            }
            sleep(REJOIN_AFTER).await;
        }
    }

    /// Waits until the watch is established for the first time.
    pub(super) async fn stands(&self) -> Result<(), Status> {
        let mut joined = self.joined.subscribe();
        let stands = timeout(JOIN_LIMIT, joined.wait_for(|joined| *joined > 0)).await.is_ok();
        let silent = || {
            let seconds = JOIN_LIMIT.as_secs();
            Status::unavailable(format!(
                "no answer for {seconds} s; see EVENTS in \"meshwork instances order\", customer and query"
            ))
        };
        if stands { Ok(()) } else { Err(silent()) }
    }

    /// Takes news of an order in. Old news changes nothing: after a change of instance they may come twice, or late.
    pub(super) fn saw(&self, order_id: &str, state: OrderState) {
        self.with_order(order_id, |order| {
            order.send_if_modified(|seen| {
                let is_news = rank(state) > rank(seen.state);
                if is_news {
                    *seen = Seen { state, at: Instant::now() };
                }
                is_news
            })
        });
    }

    /// Waits until an order is in a state that `is_end` takes for its end; `ask` looks it up if the watch may have missed
    /// it. `None`: it has not come to an end in twice the time that it may take.
    pub(super) async fn end_of<F>(
        &self,
        order_id: &str,
        is_end: impl Fn(OrderState) -> bool,
        ask: impl Fn() -> F,
    ) -> Option<Seen>
    where
        F: Future<Output = Result<OrderState, Status>>,
    {
        let mut joined = self.joined.subscribe();
        let mut order = self.with_order(order_id, watch::Sender::subscribe);
        let end = async {
            loop {
                tokio::select! {
                    // The sender is in the map, which only grows.
                    seen = order.wait_for(|seen| is_end(seen.state)) => return *seen.expect("the tracker has the sender"),
                    _ = joined.changed() => {}
                    () = sleep(ASK_AFTER) => {}
                }
                // An error tells nothing: the next round asks again.
                if let Ok(state) = ask().await {
                    self.saw(order_id, state);
                }
            }
        };
        timeout(END_LIMIT, end).await.ok()
    }

    fn with_order<T>(&self, order_id: &str, act: impl FnOnce(&watch::Sender<Seen>) -> T) -> T {
        let mut orders = self.orders.lock();
        let unseen = || watch::Sender::new(Seen { state: OrderState::Unspecified, at: Instant::now() });
        act(orders.entry(order_id.to_owned()).or_insert_with(unseen))
    }
}

/// Orders only ever move to a higher rank.
fn rank(state: OrderState) -> u8 {
    match state {
        OrderState::Unspecified => 0,
        OrderState::Pending => 1,
        OrderState::Approved | OrderState::Rejected => 2,
        OrderState::Cancelled => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::audit::is_terminal;

    #[tokio::test(start_paused = true)]
    async fn news_that_came_before_the_question_are_not_lost_and_old_news_change_nothing() {
        let tracker = Tracker::new([]);
        tracker.saw("o", OrderState::Approved);
        tracker.saw("o", OrderState::Cancelled);
        tracker.saw("o", OrderState::Pending);
        let end = tracker.end_of("o", is_terminal, pending).await.expect("it has ended");
        assert_eq!(end.state, OrderState::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_watch_missed_is_asked_for_as_soon_as_the_watch_is_back() {
        let tracker = Tracker::new([]);
        let begin = Instant::now();
        let end = tracker.end_of("o", is_terminal, || ready(Ok(OrderState::Rejected)));
        let rejoin = async { tracker.joined.send_modify(|joined| *joined += 1) };
        let (end, ()) = tokio::join!(end, rejoin);
        assert_eq!(end.expect("it was asked for").state, OrderState::Rejected);
        assert!(begin.elapsed() < ASK_AFTER, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_never_ends_is_given_up() {
        let tracker = Tracker::new([]);
        let end = tracker.end_of("o", is_terminal, || ready(Ok(OrderState::Pending))).await;
        assert!(end.is_none());
    }
}
