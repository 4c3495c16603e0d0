//! The store of a service is set back to a backup, as docs/operations.md says, and the mesh is brought back: readers
//! of what is lost notice, and after `meshwork reconcile` all agree again.

use std::{fs, io, path::PathBuf};

use clap::Parser as _;
use meshwork_cli::args::Cli;
use meshwork_events::store;
use meshwork_fixture::{Dump, Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    customer::v1::UpdateCreditLimitRequest,
    order::v1::{Order, OrderState, RejectionReason},
    query::v1::{GetCustomerHistoryRequest, GetProjectionStatusRequest},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::shop::{Home, STUCK, Shop, usd};

on_both_stores!(
    flavor = "multi_thread";
    orders_that_were_set_back_are_reconciled_and_each_new_one_is_seen_and_has_its_credit,
    customers_that_were_set_back_are_reconciled_and_exactly_the_approved_orders_hold_credit,
);

const LIMIT: i64 = 100_000;
const TOTAL: i64 = 100;

/// A copy of a service's database.
enum Backup {
    Sqlite { copy: PathBuf, of: PathBuf },
    Postgres { dump: Dump, url: String },
}

impl Backup {
    /// While the service runs. `None`, said aloud: the programs for it are not there.
    async fn of(home: &Home, service: &str) -> Option<Self> {
        let url = home.database_url(service);
        let copy = home.folder().join(format!("{service}.backup"));
        let Some(of) = url.strip_prefix("sqlite://").map(PathBuf::from) else {
            return match Dump::of(&url, copy) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    eprintln!("SKIPPED: pg_dump is not installed (Debian: apt-get install postgresql-client)");
                    None
                }
                dump => Some(Self::Postgres { dump: dump.expect("dumped"), url }),
            };
        };
        store::backup(&url, copy.clone()).await.expect("backed up");
        Some(Self::Sqlite { copy, of })
    }

    /// While it does not run.
    fn restore(&self) {
        match self {
            Self::Postgres { dump, url } => dump.restore(url).expect("put back"),
            Self::Sqlite { copy, of } => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = of.clone().into_os_string();
                    file.push(suffix);
                    // A file that is not there need not be removed.
                    let _ = fs::remove_file(file);
                }
                fs::copy(copy, of).expect("put back");
            }
        }
    }
}

/// Runs a command line to its end.
async fn meshwork(shop: &Shop, command: &[&str]) {
    let registry = shop.fleet.registry_url();
    let line = ["meshwork"].iter().chain(command).chain(&["--registry", &registry]).copied().collect::<Vec<_>>();
    let cli = Cli::try_parse_from(line).expect("a command line");
    meshwork_cli::run(cli, CancellationToken::new()).await.expect("done");
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

impl Shop {
    async fn orders(&self, customer_id: &str, count: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        for _ in 0..count {
            orders.push(self.settled_order(customer_id, usd(TOTAL)).await);
        }
        orders
    }

    /// Waits until the view says that it has another past than this token.
    async fn diverged(&self, order: &Order) {
        let diverged = async {
            loop {
                match self.viewed(&order.order_id, &order.position_token).await {
                    Err(status) if reason(&status) == "VIEW_DIVERGED" => return,
                    other => assert!(other.is_err(), "an answer from another past: {other:?}"),
                }
            }
        };
        timeout(STUCK, diverged).await.expect("it is noticed");
    }

    /// Waits until every view, whichever is asked, is of its sources' past again.
    async fn agree(&self, order: &Order) {
        let agree = async {
            for _ in 0..20 {
                while self.viewed(&order.order_id, &order.position_token).await.is_err() {}
            }
        };
        timeout(STUCK, agree).await.expect("the views are of one past again");
    }
}

async fn orders_that_were_set_back_are_reconciled_and_each_new_one_is_seen_and_has_its_credit(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(LIMIT)).await.customer_id;
    let kept = shop.orders(&customer, 8).await;
    let Some(backup) = Backup::of(&shop.home, "order").await else { return };
    let lost = shop.orders(&customer, 12).await;
    // Known to the backup as approved, and ended since.
    shop.cancel(&kept[0].order_id).await.expect("cancelled");
    shop.wait_for_credit(&customer, &usd(LIMIT - 19 * TOTAL)).await;
    for order in &lost {
        shop.viewed(&order.order_id, &order.position_token).await.expect("seen");
    }
    let Shop { fleet, home, .. } = shop;
    fleet.stop().await;

    backup.restore();
    // It is alone at first, and takes orders where others have read further.
    let alone = Shop::open_in(home, 2, |config| (config.replicas.customer, config.replicas.query) = (0, 0)).await;
    let mut new = Vec::new();
    for _ in 0..12 {
        new.push(alone.order(&customer, usd(TOTAL)).await);
    }
    let Shop { fleet, home, .. } = alone;
    fleet.stop().await;

    let shop = Shop::open_in(home, 2, |_| {}).await;
    for order in new.iter().chain(&lost) {
        shop.diverged(order).await;
    }
    meshwork(&shop, &["reconcile", "order"]).await;
    shop.diverged(&new[0]).await;

    meshwork(&shop, &["reconcile", "order", "--yes"]).await;

    shop.agree(&new[0]).await;
    for order in &new {
        let settled = shop.settled(&order.order_id).await;
        assert_eq!(settled.state(), OrderState::Approved);
        let seen = shop.viewed(&order.order_id, &settled.position_token).await.expect("seen");
        assert_eq!(seen.state(), OrderState::Approved);
    }
    for order in &lost {
        let refused = shop.viewed(&order.order_id, &order.position_token).await.expect_err("lost");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "POSITION_LOST"));
        assert_eq!(shop.viewed(&order.order_id, "").await.expect_err("gone").code(), Code::NotFound);
    }
    // Its end is not forgotten: the customer service remembers that it gave the credit back.
    let cancelled = async { while shop.get_order(&kept[0].order_id).await.state() != OrderState::Cancelled {} };
    timeout(STUCK, cancelled).await.expect("cancelled again");
    shop.wait_for_credit(&customer, &usd(LIMIT - (7 + 12) * TOTAL)).await;
    meshwork(&shop, &["reconcile", "order", "--yes"]).await;
    shop.wait_for_credit(&customer, &usd(LIMIT - (7 + 12) * TOTAL)).await;
    shop.fleet.stop().await;
}

async fn customers_that_were_set_back_are_reconciled_and_exactly_the_approved_orders_hold_credit(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(10 * TOTAL)).await.customer_id;
    shop.orders(&customer, 8).await;
    let Some(backup) = Backup::of(&shop.home, "customer").await else { return };
    let raised = UpdateCreditLimitRequest {
        customer_id: customer.clone(),
        credit_limit: Some(usd(20 * TOTAL)),
        etag: String::new(),
    };
    shop.customers.clone().update_credit_limit(raised).await.expect("raised");
    let more = shop.orders(&customer, 6).await;
    let forgotten = shop.customer(usd(LIMIT)).await;
    let of_forgotten = shop.orders(&forgotten.customer_id, 2).await;
    assert!(more.iter().chain(&of_forgotten).all(|order| order.state() == OrderState::Approved));
    shop.agree(&of_forgotten[1]).await;
    let Shop { fleet, home, .. } = shop;
    fleet.stop().await;

    backup.restore();
    let shop = Shop::open_in(home, 2, |_| {}).await;
    meshwork(&shop, &["reconcile", "customer", "--yes"]).await;

    // Of the six two still have room under the limit as it was; the others are taken back.
    let states = async |orders: &[Order]| {
        let mut states = Vec::new();
        for order in orders {
            let order = shop.get_order(&order.order_id).await;
            states.push((order.state(), order.rejection_reason()));
        }
        states
    };
    let refused =
        |reason| move |(state, why): &&(OrderState, RejectionReason)| (*state, *why) == (OrderState::Rejected, reason);
    let settled = async {
        loop {
            let (more, forgotten) = (states(&more).await, states(&of_forgotten).await);
            let over_the_limit = more.iter().filter(refused(RejectionReason::InsufficientCredit)).count();
            let unknown = forgotten.iter().filter(refused(RejectionReason::UnknownCustomer)).count();
            if (over_the_limit, unknown) == (4, 2) {
                return;
            }
        }
    };
    timeout(STUCK, settled).await.expect("orders follow their credit");
    shop.wait_for_credit(&customer, &usd(0)).await;

    let history =
        |customer_id: &str| GetCustomerHistoryRequest { customer_id: customer_id.to_owned(), ..Default::default() };
    let view_agrees = async {
        loop {
            let known = shop.queries.clone().get_customer_history(history(&customer)).await;
            let limit = known.ok().and_then(|history| history.into_inner().customer?.credit_limit);
            let gone = shop.queries.clone().get_customer_history(history(&forgotten.customer_id)).await;
            if limit == Some(usd(10 * TOTAL)) && gone.is_err_and(|status| status.code() == Code::NotFound) {
                return;
            }
        }
    };
    timeout(STUCK, view_agrees).await.expect("views follow");
    let request = GetProjectionStatusRequest { position_token: forgotten.position_token };
    let lost = shop.queries.clone().get_projection_status(request).await.expect_err("lost");
    assert_eq!(reason(&lost), "POSITION_LOST");
    shop.fleet.stop().await;
}
