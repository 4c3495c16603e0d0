//! What callers see: an order through its saga, watches, and the exact error of every bad request.

use futures_util::{FutureExt as _, StreamExt as _};
use meshwork::{
    health::{Condition, Conditioner},
    rpc::draining_status,
};
use meshwork_events::{outbox::PositionToken, store::Sql};
use meshwork_shop::{
    contract::shop::{
        order::v1::{OrderState, RejectionReason},
        r#type::v1::Money,
    },
    timestamp,
};
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    deadlines::Now,
    sweeper::{SweepError, Sweeper},
};

const SAGA_DEADLINE: Duration = Duration::from_secs(30);

struct Service {
    rpcs: Rpcs,
    folder: TempDir,
}

impl Service {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        Self { rpcs: Self::open(&folder).await, folder }
    }

    /// The same data, after a restart.
    async fn restart(self) -> Self {
        let Self { rpcs, folder } = self;
        rpcs.store.close().await;
        drop(rpcs);
        Self { rpcs: Self::open(&folder).await, folder }
    }

    async fn open(folder: &TempDir) -> Rpcs {
        let url = format!("sqlite://{}", folder.path().join("order.db").display());
        Rpcs::new(
            crate::open(&url).await.expect("a store"),
            SAGA_DEADLINE,
            CancellationToken::new(),
            Condition::default(),
        )
    }

    async fn create(&self, request: CreateOrderRequest) -> Result<OrderMessage, Status> {
        self.rpcs.create_order(Request::new(request)).await.map(Response::into_inner)
    }

    async fn get(&self, order_id: &str) -> Result<OrderMessage, Status> {
        let request = GetOrderRequest { order_id: order_id.into() };
        self.rpcs.get_order(Request::new(request)).await.map(Response::into_inner)
    }

    async fn cancel(&self, order_id: &str) -> Result<OrderMessage, Status> {
        let request = CancelOrderRequest { order_id: order_id.into() };
        self.rpcs.cancel_order(Request::new(request)).await.map(Response::into_inner)
    }

    async fn watch(&self, order_id: &str) -> Result<<Rpcs as OrderService>::WatchOrderStream, Status> {
        let request = WatchOrderRequest { order_id: order_id.into() };
        self.rpcs.watch_order(Request::new(request)).await.map(Response::into_inner)
    }

    /// Credit for this order was consumed.
    async fn reserved(&self, order: &OrderMessage) {
        let input = Input::CreditReserved { order_id: order.order_id.parse().expect("an id"), now_ms: now_ms() };
        self.rpcs.store.writer().submit(input).await.expect("settled");
    }
}

fn money(currency_code: &str, units: i64, nanos: i32) -> Money {
    Money { currency_code: currency_code.into(), units, nanos }
}

fn request(request_id: &str) -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: "0198c0de-0000-4000-8000-00000000000a".into(),
        total: Some(money("USD", 12, 340_000_000)),
        request_id: request_id.into(),
    }
}

/// Code, reason, and the fields that are wrong.
fn seen(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("always given");
    assert_eq!(info.domain, "order.shop");
    let fields = details.bad_request().map_or(Vec::new(), |bad| bad.field_violations.clone());
    (status.code(), info.reason.clone(), fields.into_iter().map(|violation| violation.field).collect())
}

fn invalid(fields: &[&str]) -> (Code, String, Vec<String>) {
    (Code::InvalidArgument, "INVALID_FIELD".into(), fields.iter().map(ToString::to_string).collect())
}

fn failed(code: Code, reason: &str) -> (Code, String, Vec<String>) {
    (code, reason.into(), Vec::new())
}

#[tokio::test]
async fn an_order_is_pending_at_once_and_as_it_was_after_a_restart() {
    let service = Service::start().await;
    let order = service.create(request("")).await.expect("created");
    assert_eq!((order.state(), order.rejection_reason()), (OrderState::Pending, RejectionReason::Unspecified));
    assert_eq!(order.total, Some(money("USD", 12, 340_000_000)));
    let (created, deadline) = (order.create_time.expect("set"), order.deadline_time.expect("set"));
    assert_eq!(deadline.seconds - created.seconds, 30);
    let token = PositionToken::parse(&order.position_token).expect("a token");
    assert_eq!((token.source.as_str(), token.position), ("order", 1));

    let service = service.restart().await;
    assert_eq!(service.get(&order.order_id).await.expect("found"), order);
}

#[tokio::test]
async fn cancelling_is_repeatable_and_tells_where_its_event_stands() {
    let service = Service::start().await;
    let order = service.create(request("")).await.expect("created");
    service.reserved(&order).await;
    let cancelled = service.cancel(&order.order_id).await.expect("cancelled");
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    assert_ne!(cancelled.etag, order.etag);
    assert_eq!(PositionToken::parse(&cancelled.position_token).expect("a token").position, 3);
    assert_eq!(service.cancel(&order.order_id).await.expect("again"), cancelled);
}

/// The first sweep after a start.
async fn sweep(service: &Service, wall_ms: i64) -> Result<(), SweepError> {
    let now = Now { wall_ms, monotonic_ms: 0 };
    Sweeper::new(now).sweep(&service.rpcs.store, now).await
}

#[tokio::test]
async fn a_deadline_kept_over_a_restart_rejects_what_still_waits_and_nothing_else() {
    let service = Service::start().await;
    let waiting = service.create(request("")).await.expect("created");
    let approved = service.create(request("")).await.expect("created");
    service.reserved(&approved).await;
    let service = service.restart().await;
    let deadline_ms = now_ms() + i64::try_from(SAGA_DEADLINE.as_millis()).expect("short");

    sweep(&service, now_ms()).await.expect("swept");
    assert_eq!(service.get(&waiting.order_id).await.expect("found").state(), OrderState::Pending, "too early");

    sweep(&service, deadline_ms).await.expect("swept");
    let rejected = service.get(&waiting.order_id).await.expect("found");
    assert_eq!((rejected.state(), rejected.rejection_reason()), (OrderState::Rejected, RejectionReason::TimedOut));
    assert_eq!(rejected.update_time, Some(timestamp(deadline_ms)));
    assert_eq!(service.get(&approved.order_id).await.expect("found").state(), OrderState::Approved);

    let refused = service.cancel(&waiting.order_id).await.expect_err("rejected");
    assert_eq!(seen(&refused), failed(Code::FailedPrecondition, "ORDER_REJECTED"));
}

#[tokio::test]
async fn an_order_has_the_time_that_it_was_given_wherever_the_wall_clock_is_set_and_a_restart_goes_by_the_wall() {
    const HOUR_MS: i64 = 3_600_000;
    for by in [HOUR_MS, -HOUR_MS, -2 * now_ms()] {
        let service = Service::start().await;
        let begin = now_ms();
        let waiting = service.create(request("")).await.expect("created");
        let deadline_ms = SAGA_DEADLINE.as_millis() as i64;
        let at = |monotonic_ms: i64, by: i64| Now { wall_ms: begin + monotonic_ms + by, monotonic_ms };
        let state = async || service.get(&waiting.order_id).await.expect("found").state();
        let mut sweeper = Sweeper::new(at(0, 0));
        let created_ms = now_ms() - begin;
        for early in [at(0, 0), at(created_ms + 1_500, by), at(deadline_ms - 1, by)] {
            sweeper.sweep(&service.rpcs.store, early).await.expect("swept");
            assert_eq!(state().await, OrderState::Pending, "{by}: {early:?}");
        }
        let late = at(deadline_ms + created_ms, by);
        sweeper.sweep(&service.rpcs.store, late).await.expect("swept");
        assert_eq!(state().await, OrderState::Rejected, "{by}");
        let rejected = service.get(&waiting.order_id).await.expect("found");
        let told = if by > 0 { Some(timestamp(late.wall_ms)) } else { waiting.update_time };
        assert_eq!(rejected.update_time, told, "the wall's, and not before the one before");
    }
    let service = Service::start().await;
    let waiting = service.create(request("")).await.expect("created");
    sweep(&service, now_ms() - HOUR_MS).await.expect("swept");
    assert_eq!(service.get(&waiting.order_id).await.expect("found").state(), OrderState::Pending);
    sweep(&service, now_ms() + HOUR_MS).await.expect("swept");
    assert_eq!(service.get(&waiting.order_id).await.expect("found").state(), OrderState::Rejected);
}

#[tokio::test]
async fn an_order_of_a_host_whose_clock_is_an_hour_behind_has_the_time_that_it_was_given() {
    const HOUR_MS: i64 = 3_600_000;
    let deadline_ms = SAGA_DEADLINE.as_millis() as i64;
    // Whether this host's clock was right before, and was set while one of its own orders waited.
    for was_set in [false, true] {
        let service = Service::start().await;
        let begin = now_ms();
        let ahead = |monotonic_ms: i64| Now { wall_ms: begin + monotonic_ms + HOUR_MS, monotonic_ms };
        let first = if was_set { Now { wall_ms: begin, monotonic_ms: 0 } } else { ahead(0) };
        let mut sweeper = Sweeper::new(first);
        sweeper.sweep(&service.rpcs.store, first).await.expect("swept");
        if was_set {
            let own = service.create(request("")).await.expect("created");
            let done = ahead(now_ms() - begin + deadline_ms);
            sweeper.sweep(&service.rpcs.store, done).await.expect("swept");
            assert_eq!(service.get(&own.order_id).await.expect("found").state(), OrderState::Rejected);
        }
        let others = service.create(request("")).await.expect("created");
        let state = async || service.get(&others.order_id).await.expect("found").state();
        let seen_ms = 2 * deadline_ms;
        for early in [ahead(seen_ms), ahead(seen_ms + deadline_ms - 1)] {
            sweeper.sweep(&service.rpcs.store, early).await.expect("swept");
            assert_eq!(state().await, OrderState::Pending, "{was_set}: {early:?}");
        }
        sweeper.sweep(&service.rpcs.store, ahead(seen_ms + deadline_ms)).await.expect("swept");
        assert_eq!(state().await, OrderState::Rejected, "its own host may be gone");
    }
}

#[tokio::test]
async fn a_watch_shows_the_order_as_it_changes_and_ends_with_its_saga() {
    let service = Service::start().await;
    let order = service.create(request("")).await.expect("created");
    let mut watch = service.watch(&order.order_id).await.expect("a stream");
    assert_eq!(watch.next().await.expect("first").expect("an order"), order);
    assert!(watch.next().now_or_never().is_none(), "nothing has changed");

    let (next, ()) = tokio::join!(watch.next(), service.reserved(&order));
    let approved = next.expect("told").expect("an order");
    assert_eq!(approved.state(), OrderState::Approved);
    assert!(watch.next().await.is_none(), "ended");

    let late: Vec<_> = service.watch(&order.order_id).await.expect("a stream").collect().await;
    assert_eq!(late.len(), 1, "the terminal state alone");
    assert_eq!(late[0].as_ref().expect("an order"), &approved);
}

#[tokio::test]
async fn a_change_between_the_first_state_and_the_next_poll_is_not_missed() {
    let service = Service::start().await;
    let order = service.create(request("")).await.expect("created");
    let mut watch = service.watch(&order.order_id).await.expect("a stream");
    service.reserved(&order).await;
    assert_eq!(watch.next().await.expect("first").expect("an order").state(), OrderState::Pending);
    let next = tokio::time::timeout(Duration::from_millis(900), watch.next()).await.expect("woken, not reloaded");
    assert_eq!(next.expect("told").expect("an order").state(), OrderState::Approved);
}

#[tokio::test]
async fn orders_that_the_store_does_not_let_end_hold_up_no_other_and_are_named() {
    const STUCK: usize = 600;
    let service = Service::start().await;
    let created = futures_util::future::join_all((0..STUCK + 1).map(|_| service.create(request("")))).await;
    let created: Vec<_> = created.into_iter().map(|order| order.expect("created").order_id).collect();
    let (last, stuck) = created.split_last().expect("some");
    let trigger = format!(
        "create trigger no_end before update on customer_order when old.order_id <> x'{}' \
         begin select raise(abort, 'it may not end'); end",
        last.replace('-', "")
    );
    let mut tx = service.rpcs.store.database().begin().await.expect("begun");
    tx.execute(Sql::new(trigger)).await.expect("made");
    tx.commit().await.expect("committed");

    let deadline_ms = now_ms() + SAGA_DEADLINE.as_millis() as i64 + 1000;
    let problem = sweep(&service, deadline_ms).await.expect_err("they do not end");
    let problem = problem.to_string();
    assert!(problem.contains(&format!("{STUCK} orders")), "{problem}");
    assert!(stuck.iter().any(|order_id| problem.contains(order_id)), "{problem}");
    assert_eq!(service.get(last).await.expect("there").state(), OrderState::Rejected);
}

#[tokio::test]
async fn a_draining_instance_sends_its_watchers_elsewhere() {
    let service = Service::start().await;
    let order = service.create(request("")).await.expect("created");
    let mut watch = service.watch(&order.order_id).await.expect("a stream");
    watch.next().await.expect("first").expect("an order");
    service.rpcs.draining.cancel();
    let end = watch.next().await.expect("told").expect_err("draining");
    assert_eq!((end.code(), end.message()), (Code::Unavailable, draining_status().message()));
}

#[tokio::test]
async fn an_instance_that_is_not_serving_sends_its_watchers_elsewhere() {
    let mut service = Service::start().await;
    let serving = Conditioner::default();
    service.rpcs.serving = serving.condition();
    let order = service.create(request("")).await.expect("created");
    let mut watch = service.watch(&order.order_id).await.expect("a stream");
    watch.next().await.expect("first").expect("an order");
    serving.set(Err("the file was removed".into()));
    let end = watch.next().await.expect("told").expect_err("nothing would change here any more");
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("the file was removed"), "{end}");
}

#[tokio::test]
async fn the_same_request_returns_its_order_and_another_body_is_refused() {
    let request_id = "0198C0DE-0000-4000-8000-000000000001";
    let service = Service::start().await;
    let first = service.create(request(request_id)).await.expect("created");
    let respelled = CreateOrderRequest {
        customer_id: request("").customer_id.to_uppercase(),
        ..request(&request_id.to_lowercase())
    };
    assert_eq!(service.create(respelled).await.expect("the same"), first);

    let service = service.restart().await;
    assert_eq!(service.create(request(request_id)).await.expect("the same"), first);
    let other = CreateOrderRequest { total: Some(money("USD", 1, 0)), ..request(request_id) };
    let refused = service.create(other).await.expect_err("another body");
    assert_eq!(seen(&refused), (Code::InvalidArgument, "REQUEST_ID_REUSED".into(), vec!["request_id".into()]));
}

#[tokio::test]
async fn every_malformed_request_is_told_what_is_wrong() {
    let service = Service::start().await;
    let costs = |total| CreateOrderRequest { total: Some(total), ..request("") };
    for (request, fields) in [
        (CreateOrderRequest::default(), vec!["customer_id", "total"]),
        (CreateOrderRequest { customer_id: "x".into(), ..request("y") }, vec!["customer_id", "request_id"]),
        (costs(money("USD", 0, 0)), vec!["total"]),
        (costs(money("USD", -1, 0)), vec!["total.units"]),
        (costs(money("KRW", 1, 1)), vec!["total.nanos"]),
        (costs(money("usd", 1, 0)), vec!["total.currency_code"]),
        (costs(money("USD", i64::MAX, 0)), vec!["total.units"]),
    ] {
        assert_eq!(seen(&service.create(request).await.expect_err("malformed")), invalid(&fields));
    }

    let unknown = Uuid::now_v7().to_string();
    for (id, expected) in [("", invalid(&["order_id"])), (&unknown, failed(Code::NotFound, "UNKNOWN_ORDER"))] {
        assert_eq!(seen(&service.get(id).await.expect_err("no order")), expected);
        assert_eq!(seen(&service.cancel(id).await.expect_err("no order")), expected);
        assert_eq!(seen(&service.watch(id).await.err().expect("no order")), expected);
    }
}
