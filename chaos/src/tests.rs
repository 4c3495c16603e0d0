//! A run of a few seconds, with planned faults and all the checks, on SQLite and with the processes of a test.

use meshwork_harness::shop_processes::serve;

use super::{
    plan::{Fault, Planned, Target},
    *,
};

/// Not a test, but what runs in the processes of the others.
#[tokio::test(flavor = "multi_thread")]
async fn service_process() -> ExitCode {
    serve().await
}

fn programs() -> Programs {
    Programs::Test { path: std::env::current_exe().expect("this program"), test: "tests::service_process" }
}

/// The indices of the services of a shop with one process each.
const CUSTOMER: Target = Target::Service(0);
const ORDER: Target = Target::Service(1);
const QUERY: Target = Target::Service(2);

fn at(ms: u64, target: Target, fault: Fault) -> Planned {
    Planned { at: Duration::from_millis(ms), target, fault }
}

async fn run(plan: Vec<Planned>, length: Duration) -> RunOutcome {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, replicas) = (Store::Sqlite, Replicas::all(1));
    let config =
        Config { folder: folder.path().to_path_buf(), store, replicas, fronted: true, registries: 2, tls: Tls::Off };
    let shop = ShopProcesses::start(&programs(), &config).await.expect("started");
    let releases = Releases { new: programs(), old: programs() };
    Run { seed: 1, length, orders_per_s: 50, plan, releases }.on(shop).await.expect("judged")
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_stopped_and_cut_off_lose_and_double_nothing() {
    let down = Duration::from_millis(200);
    let plan = vec![
        at(300, CUSTOMER, Fault::Kill(down)),
        at(600, QUERY, Fault::Kill(down)),
        at(900, ORDER, Fault::Kill(down)),
        at(1_400, Target::Registry(0), Fault::Kill(down)),
        at(1_600, CUSTOMER, Fault::Cut),
        at(1_700, ORDER, Fault::Stall(down)),
        at(2_000, CUSTOMER, Fault::Pause(down)),
        at(2_200, ORDER, Fault::Replace),
        at(2_400, QUERY, Fault::Remove(down)),
        at(2_600, CUSTOMER, Fault::Remove(down)),
    ];
    let faults = plan.len() as f64;
    let RunOutcome { figures, failures, .. } = run(plan, Duration::from_secs(3)).await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(figures.get("faults"), Some(faults));
    assert!(figures.get("orders") > Some(100.0) && figures.get("approved") > Some(0.0), "{figures:?}");
}

#[test]
fn the_command_line_is_consistent_and_every_example_in_its_help_is_accepted() {
    use clap::CommandFactory as _;

    Args::command().debug_assert();
    let help = Args::command().get_after_help().expect("examples").to_string();
    let examples: Vec<_> = help.lines().filter_map(|line| line.split_once("cargo chaos-mesh")).collect();
    assert!(!examples.is_empty());
    for (_, example) in examples {
        // What it is for stands behind it, apart.
        let flags = example.split("   ").next().expect("there is a first part").split_whitespace();
        assert!(Args::try_parse_from(["meshwork-chaos"].into_iter().chain(flags)).is_ok(), "{example}");
    }
}
