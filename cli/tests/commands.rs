//! Commands against a mesh that runs in this process.

use std::time::Duration;

use clap::Parser as _;
use meshwork::{
    discovery::EndpointSet,
    policy::{Policy, RetryPolicy, SplitPolicy},
};
use meshwork_cli::{
    args::Cli,
    fleet::{Config, Fleet, Replicas},
    run,
};
use meshwork_fixture::restart_port;
use meshwork_process::Failure;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

async fn command(line: &str) -> Result<(), Failure> {
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("a good command line");
    run(cli, CancellationToken::new()).await
}

fn failure(result: Result<(), Failure>) -> String {
    match result.expect_err("it should fail") {
        Failure::Run(error) => error.to_string(),
        Failure::Interrupted => panic!("no signal was sent"),
        Failure::Flag { flag, problem, .. } => panic!("exit code 2 is for flags: {flag}: {problem}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_in_a_running_mesh_keeps_every_promise_and_a_lie_about_it_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { replicas: Replicas::all(1), ..Config::new(folder.path()) };
    let fleet = Fleet::start(config).await.expect("a mesh");
    let registry = fleet.registry_url();

    let honest = command(&format!("meshwork demo --orders 60 --customers 3 --registry {registry}")).await;
    assert!(honest.is_ok(), "{honest:?}");
    let tampered = command(&format!("meshwork demo --orders 60 --customers 3 --tamper --registry {registry}")).await;
    assert_eq!(failure(tampered), "checks failed: 1");

    assert!(command(&format!("meshwork services --registry {registry}")).await.is_ok());
    assert!(command(&format!("meshwork instances order --registry {registry}")).await.is_ok());
    assert!(command(&format!("meshwork instances order --stats --registry {registry}")).await.is_ok());
    let unknown = failure(command(&format!("meshwork instances nope --registry {registry}")).await);
    assert!(unknown.contains(r#"knows no service "nope""#), "{unknown}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_registry_that_accepts_connections_and_never_answers_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let registry = silent.local_addr().expect("it listens");
    let commands = [
        "services",
        "instances order",
        "policy get order",
        "split order v1=1",
        "authz get order",
        "authz list",
        "authz check --as service/query order/GetOrder",
        "bindings",
        "watch",
        "demo",
    ];
    let commands = commands
        .map(|name| async move { (name, failure(command(&format!("meshwork {name} --registry {registry}")).await)) });
    for (line, error) in futures_util::future::join_all(commands).await {
        assert!(error.starts_with(&format!("no registry answers at http://{registry}")), "{line}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_effective_in_running_clients_and_outlives_the_registry() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { replicas: Replicas::all(1), ..Config::new(folder.path()) };
    let fleet = Fleet::start(config).await.expect("a mesh");
    let registry = fleet.registry_url();
    let order = async |line: &str| command(&format!("meshwork {line} --registry {registry}")).await;
    let mut endpoints = fleet.mesh().endpoints("order");
    assert_eq!(*endpoints.borrow().policy, Policy::default());

    order("policy set order --timeout 2s --max-attempts 2").await.expect("set");
    order("split order v1=95 v2=5").await.expect("set");

    let weights = [("v1".to_owned(), 95), ("v2".to_owned(), 5)].into();
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    let timeout = Some(Duration::from_secs(2));
    let wanted = Policy { timeout, retry, split: Some(SplitPolicy { weights }), ..Policy::default() };
    until_policy(&mut endpoints, &wanted).await;
    let wrong = failure(order("policy set order --backoff-min 30s --backoff-max 1s").await);
    assert!(wrong.starts_with("cannot set the policy: INVALID_ARGUMENT: policy.retry.backoff_max: must be"), "{wrong}");
    let in_the_way = folder.path().join("policies.json.draft");
    std::fs::create_dir(&in_the_way).expect("made");
    let not_stored = failure(order("policy set order --max-attempts 3").await);
    let answered = format!("cannot set the policy: the registry at {registry} answered UNAVAILABLE: the policy could");
    assert!(not_stored.starts_with(&answered), "an answer is not silence: {not_stored}");
    std::fs::remove_dir(&in_the_way).expect("removed");

    let before = endpoints.borrow().revisions.clone();
    fleet.abort_registry().await;
    let restarted = endpoints.wait_for(|set| set.is_heard() && !set.revisions.keys().eq(before.keys()));
    let restarted = tokio::time::timeout(LIMIT, restarted).await.expect("it is started again").expect("a mesh");
    assert_eq!(*restarted.policy, wanted);
    drop(restarted);

    order("split order --clear").await.expect("set");
    until_policy(&mut endpoints, &Policy { split: None, ..wanted }).await;
    order("policy list --json").await.expect("listed");
    order("policy get order").await.expect("shown");
    order("policy clear order").await.expect("set");
    until_policy(&mut endpoints, &Policy::default()).await;
    fleet.stop().await;
}

async fn until_policy(endpoints: &mut watch::Receiver<EndpointSet>, policy: &Policy) {
    let seen = tokio::time::timeout(LIMIT, endpoints.wait_for(|set| *set.policy == *policy)).await;
    seen.expect("clients see it soon").expect("a mesh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_in_order_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { replicas: Replicas::all(1), ..Config::new(folder.path()) };
    let fleet = Fleet::start(config).await.expect("a mesh");
    let cli = Cli::try_parse_from(["meshwork", "watch", "--json", "--registry", &fleet.registry_url()]).expect("good");
    let shutdown = CancellationToken::new();
    let watch = tokio::spawn(run(cli, shutdown.clone()));
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), watch).await.expect("it ends at once");
    assert!(ended.expect("no panic").is_ok());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_good_of_a_server_that_serves_and_bad_of_one_that_is_gone_or_never_answers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { replicas: Replicas::all(1), ..Config::new(folder.path()) };
    let fleet = Fleet::start(config).await.expect("a mesh");
    let addresses = fleet.instances().into_iter().map(|instance| instance.address).collect::<Vec<_>>();
    for address in &addresses {
        let asked = command(&format!("meshwork health {address}")).await;
        assert!(asked.is_ok(), "{address}: {asked:?}");
    }
    fleet.stop().await;
    let gone = failure(command(&format!("meshwork health {}", addresses[0])).await);
    assert!(gone.starts_with(&format!("{} does not answer: ", addresses[0])), "{gone}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("it listens");
    let given_up = failure(command(&format!("meshwork health {address}")).await);
    assert_eq!(given_up, format!("{address} does not answer within 3 s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_done_at_a_silent_registry_is_no_success_and_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { replicas: Replicas::all(1), ..Config::new(folder.path()) };
    let fleet = Fleet::start(config).await.expect("a mesh");
    let registry = fleet.registry_url();
    let gone = restart_port().expect("a free port");
    let gone = format!("http://127.0.0.1:{gone}");
    let at_both = async |line: &str| command(&format!("meshwork {line} --registry {registry},{gone}")).await;
    // At once, as each waits for the silent one.
    let lines = [
        ("policy set order --timeout 2s", "the policy was not set"),
        ("split customer --clear", "the policy was not set"),
        ("policy clear query", "the policy was not set"),
        ("authz set order --allow *=shop.order.v1.OrderService/*", "the rules were not set"),
        ("authz clear query", "the rules were not removed"),
        ("bindings set shop.order.v1.OrderService order", "the binding was not set"),
    ];
    let set = futures_util::future::join_all(lines.map(|(line, _)| at_both(line)));
    let (set, reconciled) = tokio::join!(set, at_both("reconcile order"));
    for ((line, undone), set) in lines.into_iter().zip(set) {
        let not_set = format!("{undone} at {gone}: run it again once all registries answer");
        assert_eq!(failure(set), not_set, "{line}");
    }
    let reconciled = failure(reconciled);
    assert!(reconciled.starts_with("1 store or instance was not reconciled"), "{reconciled}");
    assert!(at_both("services").await.is_ok(), "a list of what the others know");
    fleet.stop().await;

    let none = failure(at_both("services").await);
    for one in [registry, gone] {
        assert_eq!(none.matches(&format!("{one}: ")).count(), 1, "{none}");
    }
}
