//! Shops whose processes are this test binary, once for each instance.

use std::{path::Path, process::ExitCode, time::Duration};

use clap::Parser;
use meshwork_process::{
    Failure,
    telemetry::{self, LogFormat},
};
use meshwork_shop::contract::shop::{
    customer::v1::{CreateCustomerRequest, GetCustomerRequest, customer_service_client::CustomerServiceClient},
    r#type::v1::Money,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Not a test, but what runs in the processes of the others.
#[tokio::test(flavor = "multi_thread")]
async fn service_process() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != "--").skip(1);
    let Some(program) = args.next() else { return ExitCode::SUCCESS };
    telemetry::init(LogFormat::default(), "info").expect("the only one of this process");
    let shutdown = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate()).expect("a signal that may be listened to");
    let cancel = shutdown.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        cancel.cancel();
    });
    let flags = [program.clone()].into_iter().chain(args);
    let ended = match program.as_str() {
        "meshwork-registry" => serve_registry(meshwork_registry::Args::parse_from(flags), shutdown).await,
        "meshwork-customer" => meshwork_customer::process::Args::parse_from(flags).serve(shutdown).await,
        "meshwork-order" => meshwork_order::process::Args::parse_from(flags).serve(shutdown).await,
        "meshwork-query" => meshwork_query::process::Args::parse_from(flags).serve(shutdown).await,
        _ => meshwork_cli::run(meshwork_cli::args::Cli::parse_from(flags), shutdown).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_registry(args: meshwork_registry::Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let (config, listener) = args.listen().await?;
    meshwork_registry::run(config, listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
}

pub(crate) fn programs() -> Programs {
    Programs::Test {
        path: std::env::current_exe().expect("this program"),
        test: "shop_processes::tests::service_process",
    }
}

async fn sqlite(folder: &Path) -> ShopProcesses {
    let (store, replicas) = (Store::Sqlite, Replicas::all(1));
    let config = Config { folder: folder.to_path_buf(), store, replicas, fronted: false, registries: 1 };
    timeout(LIMIT, ShopProcesses::start(&programs(), &config)).await.expect("in time").expect("started")
}

fn pids(shop: &ShopProcesses) -> Vec<u32> {
    shop.registries.iter().chain(&shop.services).filter_map(|instance| instance.pid()).collect()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_that_is_started_again_has_its_data_and_another_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    let mut customers = CustomerServiceClient::new(shop.mesh().channel("customer"));
    let credit_limit = Some(Money { currency_code: "USD".into(), units: 10, nanos: 0 });
    let create = CreateCustomerRequest { name: "Ada".into(), credit_limit, ..Default::default() };
    let customer_id = customers.create_customer(create).await.expect("created").into_inner().customer_id;

    let customer = shop.instances("customer")[0].clone();
    let before = customer.address();
    customer.kill();
    assert_eq!(customer.address(), None);
    customer.start().await.expect("started again");
    assert_ne!(customer.address(), before);
    let get = || {
        let (mut customers, customer_id) = (customers.clone(), customer_id.clone());
        async move { customers.get_customer(GetCustomerRequest { customer_id }).await }
    };
    // The killed instance stays listed for a lease.
    let found = timeout(LIMIT, async { while get().await.is_err() {} }).await;
    assert!(found.is_ok());
    shop.close().await.expect("all ended in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_ends_in_order_once_it_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    shop.instances("order")[0].pause().expect("it runs");
    shop.instances("order")[0].resume().expect("it is there");
    let pids = pids(&shop);
    assert_eq!(pids.len(), 4);
    shop.close().await.expect("all ended in order");
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_shop_leaves_no_process_behind_even_a_stopped_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = sqlite(folder.path()).await;
    shop.instances("query")[0].pause().expect("it runs");
    let pids = pids(&shop);
    assert!(pids.iter().copied().all(lives));
    drop(shop);
    assert!(!pids.into_iter().any(lives));
}
