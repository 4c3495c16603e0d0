//! `meshwork authz` and `meshwork bindings` as they are typed, against a mesh in strict mode that runs in this process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use meshwork_cli::fleet::{Config, Fleet, Replicas};
use meshwork_process::Listener;
use meshwork_shop::contract::shop::order::v1::{GetOrderRequest, order_service_client::OrderServiceClient};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::Code;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
const ORDERS: &str = "shop.order.v1.OrderService";

/// A mesh, and who types commands.
struct Shop {
    fleet: Fleet,
    folder: TempDir,
}

/// What a command has said, and its exit code.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(line: &str) -> Self {
        let ended = Command::new(env!("CARGO_BIN_EXE_meshwork")).args(line.split(' ')).output();
        let ended = ended.expect("it can be started");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
    }
}

impl Shop {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = Config { replicas: Replicas::all(1), tls: true, ..Config::new(folder.path()) };
        Self { fleet: Fleet::start(config).await.expect("a mesh"), folder }
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join("tls").join(name)
    }

    fn run(&self, line: &str, certificate: &Path) -> Ended {
        let certificate = certificate.to_str().expect("UTF-8");
        Ended::of(&format!("{line} --registry {} --tls-dir {certificate}", self.fleet.registry_url()))
    }

    /// As an operator.
    fn operator(&self, line: &str) -> Ended {
        self.run(line, &self.certificate("operator"))
    }

    /// What a command that succeeds prints.
    fn out(&self, line: &str) -> String {
        let ended = self.operator(line);
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        ended.out
    }

    /// What is said of a command that fails, and its exit code.
    fn refused(&self, line: &str) -> (Option<i32>, String) {
        let ended = self.operator(line);
        assert_eq!(ended.out, "", "{line}");
        (ended.code, ended.err)
    }

    fn etag(&self, service: &str) -> String {
        let rules: serde_json::Value =
            serde_json::from_str(&self.out(&format!("authz get {service} --json"))).expect("JSON");
        rules["etag"].as_str().expect("an etag").to_owned()
    }

    /// Waits until a call of an operator ends in this way.
    async fn until_get_order_is(&self, code: Code) {
        let mut client = OrderServiceClient::new(self.fleet.mesh().channel("order"));
        let ends = async {
            while client.get_order(GetOrderRequest { order_id: "none".into() }).await.map_err(|s| s.code()).err()
                != Some(code)
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, ends).await.expect("running instances follow soon");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_are_set_hold_in_running_instances_and_a_check_says_the_same() {
    let shop = Shop::start().await;
    let open = "order has no rules: it is open to every caller of the trust domain\n";
    assert!(shop.out("authz get order").starts_with(open));
    let check = "authz check --as operator/admin order/GetOrder";
    let reason = "allowed: order has no rules, and is open to every caller of the trust domain\n";
    assert_eq!(shop.out(check), reason);
    shop.until_get_order_is(Code::InvalidArgument).await;

    let set = shop.operator(&format!("authz set order --allow service/query={ORDERS}/GetOrder"));
    let first = format!("RULE      CALLERS        METHODS\nallow[0]  service/query  {ORDERS}/GetOrder\n");
    assert!(set.code == Some(0) && set.out.starts_with(&first), "{set:?}");
    assert_eq!(set.err, "note: all other callers and methods of order are refused\n");
    assert_eq!(shop.out("authz get order"), set.out);
    shop.until_get_order_is(Code::PermissionDenied).await;

    let etag = shop.etag("order");
    let denied =
        format!("error: denied: no rule of order (etag {etag}) allows operator/admin to call {ORDERS}/GetOrder\n");
    assert_eq!(shop.refused(check), (Some(1), denied));
    for line in ["order/GetOrder", &format!("{ORDERS}/GetOrder"), &format!("order/{ORDERS}/GetOrder")] {
        let allowed = shop.out(&format!("authz check --as service/query {line}"));
        assert_eq!(allowed, format!("allowed: allow[0] of order (etag {etag})\n"), "{line}");
    }
    let listed = shop.out("authz list");
    assert_eq!(listed.lines().nth(1), Some(&*format!("order    allow[0]  service/query  {ORDERS}/GetOrder")));

    let cleared = shop.out("authz clear order");
    assert!(cleared.starts_with(open) && cleared.contains(", removed 20"), "{cleared}");
    assert_eq!(shop.out("authz list").lines().count(), 1);
    shop.until_get_order_is(Code::InvalidArgument).await;
    shop.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_is_not_overwritten_and_a_change_may_be_repeated() {
    let shop = Shop::start().await;
    let allow = |caller: &str| format!("authz set order --allow {caller}={ORDERS}/*");
    let file = shop.folder.path().join("rules.json");
    shop.out(&allow("service/query"));
    fs::write(&file, shop.out("authz get order --json")).expect("written");
    let read = shop.etag("order");
    shop.out(&allow("operator/*"));

    let changed = format!(
        "error: somebody has changed the rules of order: etag \"{read}\" is not in effect any more; run \"meshwork authz get \
         order\" again, and repeat the change\n"
    );
    let from_file = format!("authz set order --file {}", file.display());
    assert_eq!(shop.refused(&from_file), (Some(1), changed.clone()));
    assert_eq!(shop.refused(&format!("{} --etag {read}", allow("service/web"))), (Some(1), changed));
    let at_first = shop.out(&format!("{} --etag {}", allow("service/web"), shop.etag("order")));
    let again = shop.out(&format!("{} --etag {read}", allow("service/web")));
    assert_eq!(again.lines().nth(1), at_first.lines().nth(1), "what is there already is no conflict");
    shop.out(&format!("{from_file} --etag {}", shop.etag("order")));
    assert_eq!(shop.etag("order"), read, "an etag is that of the rules");
    shop.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_right_is_exit_code_2_and_what_the_registry_refuses_1() {
    let shop = Shop::start().await;
    for (line, code, says) in [
        ("authz set order --allow query=a.C/Get", 2, "--allow query=a.C/Get: \"query\" has no kind"),
        ("authz set order --allow service/query=shop.ordr.v1.OrderService/GetOrder", 1, "no instance of order serves"),
        (
            "authz set order --allow service/query=shop.order.v1.OrderService/GetOrdr",
            1,
            "the nearest that one serves is \"shop.order.v1.OrderService/GetOrder\"",
        ),
        (
            "authz set order --allow *=shop.order.v1.OrderService/* --deny *=meshwork.event.v1.EventService/Subscrib",
            1,
            "the nearest that one serves is \"meshwork.event.v1.EventService/Subscribe\"",
        ),
        ("authz set order --file /nowhere", 2, "--file /nowhere: cannot be read"),
        (
            "authz check --as spiffe://mall.test/service/query order/GetOrder",
            2,
            "is not of the trust domain meshwork.local",
        ),
        ("authz check --as service/query nope/GetOrder", 1, "knows no service \"nope\""),
        ("authz check --as service/query meshwork.event.v1.EventService/Subscribe", 2, "write SERVICE/meshwork.event"),
        ("authz check --as anonymous order/GetOrder", 1, "error: denied: in strict mode, a caller needs an identity"),
        (
            "authz check --as service/query order/meshwork.event.v1.EventService/Subscribe",
            1,
            "error: not decided by rules: meshwork.event.v1.EventService is for operators, and the callers that order names in its code",
        ),
        ("bindings clear shop.nope.v1.Nope", 1, "shop.nope.v1.Nope is not bound"),
        (
            &*format!("authz set registry --allow operator/ada={ORDERS}/GetOrder"),
            1,
            "no instance of registry serves \"shop.order.v1.OrderService\"",
        ),
        ("bindings set meshwork.event.v1.EventService order", 1, "binding.grpc_service: is served by every service"),
    ] {
        let (ended, said) = shop.refused(line);
        assert!(ended == Some(code) && said.contains(says), "{line}: {ended:?} {said}");
    }
    for line in [&*format!("authz set order --allow *={ORDERS}/*"), "authz clear order", "bindings set shop.X order"] {
        let ended = shop.run(line, &shop.certificate("order"));
        assert!(ended.code == Some(1) && ended.err.contains("PERMISSION_DENIED: service/order may not"), "{ended:?}");
    }
    let typed = shop.operator(&format!("authz set order --allow service/ordr,service/query={ORDERS}/GetOrder"));
    let warning = "warning: a rule is about the caller service/ordr, of which no instance has registered\n";
    assert!(typed.code == Some(0) && typed.err.ends_with(warning), "{typed:?}");
    shop.out("authz clear order");
    let unannounced = shop.operator("bindings set shop.order.v1.OrderServic order");
    let warning = "warning: no instance of order announces shop.order.v1.OrderServic: calls by that name fail\n";
    assert_eq!((unannounced.code, &*unannounced.err), (Some(0), warning));
    let unknown = shop.operator("authz get odrer");
    assert!(unknown.err.starts_with("warning: no instance of \"odrer\" has registered yet"), "{unknown:?}");
    assert_eq!(shop.operator("authz get registry").err, "", "it has rules, and registers nowhere");
    let health = shop.operator("authz check --as service/query order/grpc.health.v1.Health/Check");
    assert_eq!(health.err, "", "every service serves it: {health:?}");
    let unserved = shop.operator("authz check --as service/query order/shop.ordr.v1.OrderService/GetOrder");
    assert_eq!(unserved.err, "warning: no instance of order serves \"shop.ordr.v1.OrderService\"\n");
    shop.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_service_is_bound_by_its_first_registration_and_by_an_operator() {
    let shop = Shop::start().await;
    let line = |name: &str| {
        let listed = shop.out("bindings");
        let line = listed.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line(ORDERS), [ORDERS, "order", "registration", "order"]);
    let set = shop.out(&format!("bindings set {ORDERS} query"));
    assert_eq!(set.lines().last().map(|line| line.split_whitespace().nth(1)), Some(Some("query")));
    assert_eq!(line(ORDERS), [ORDERS, "query", "operator", "order"]);
    assert_eq!(shop.out(&format!("bindings clear {ORDERS}")), format!("{ORDERS} is bound to no service\n"));
    assert_eq!(line(ORDERS), [ORDERS, "order", "announced", "order"]);
    let listed: serde_json::Value = serde_json::from_str(&shop.out("bindings --json")).expect("JSON");
    assert!(listed["bindings"].as_array().is_some_and(|all| all.len() >= 3), "{listed}");
    shop.fleet.stop().await;
}

/// A registry by itself, in plain mode.
async fn registry() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let listener = Listener::new(listener).expect("bound");
    let address = listener.address().to_string();
    let config = meshwork_registry::Config::new(address.clone());
    tokio::spawn(meshwork_registry::run(config, listener, std::future::pending::<()>()));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn several_registries_are_changed_together_or_not_at_all_and_the_last_word_counts() {
    let [a, b] = [registry().await, registry().await];
    let at = |registries: &str, line: &str| Ended::of(&format!("{line} --registry {registries}"));
    let both = format!("{a},{b}");
    for (get, set) in [
        ("authz get order --json", "authz set order --allow service/CALLER=a.C/Get"),
        ("policy get order --json", "policy set order --timeout CALLER"),
    ] {
        let values = if get.starts_with("authz") { ["v1", "v2", "v3"] } else { ["1s", "2s", "3s"] };
        let [v1, v2, v3] = values.map(|value| set.replace("CALLER", value));
        let set = at(&both, &v1);
        let plain = "warning: in plain mode every caller is anonymous, and no rule allows that: nobody is let in\n";
        assert_eq!((set.code, set.err.contains(plain)), (Some(0), get.starts_with("authz")), "{v1}: {set:?}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, at(&both, get).out).expect("written");
        assert_eq!(at(&both, &v2).code, Some(0), "{v2}");
        let (command, _) = get.split_once(" get").expect("a command");
        let stale = at(&both, &format!("{command} set order --file {}", file.path().display()));
        let is_refused = stale.code == Some(1) && stale.err.starts_with("error: somebody has changed the ");
        assert!(is_refused, "{stale:?}");
        for one in [&a, &b] {
            let there = at(one, get).out;
            assert!(there.contains(values[1]), "{command} at {one}: {there}");
        }
        assert_eq!(at(&b, &v3).code, Some(0), "{v3}");
        let differ = at(&both, get);
        assert!(differ.err.contains("warning: the registries have different "), "{differ:?}");
        assert_eq!(differ.out, at(&b, get).out, "what was set last");
        assert_eq!(at(&both, &v1).code, Some(0), "each replaces its own");
        let made_equal = at(&both, get);
        assert!(!made_equal.err.contains("different"), "{made_equal:?}");
    }
    assert_eq!(at(&b, "authz clear order").code, Some(0));
    assert_eq!(at(&a, "authz list").out.lines().count(), 2);
    assert_eq!(at(&both, "authz list").out.lines().count(), 1, "they were removed after they were set");
}
