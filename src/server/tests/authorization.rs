//! Who may call: over TLS between identities of a test's own authority, and in plain text.

use std::{
    future::{pending, ready},
    sync::{Arc, mpsc},
};

use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use meshwork_fixture::Authority;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, service::InterceptorLayer};
use tonic_types::StatusExt as _;

use super::{
    layers::{Pong, within},
    logged::Logged,
    probe::{stream_of, unary},
    *,
};
use crate::{
    authorization::Rules,
    contract::{
        grpc::health::v1::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
        meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule, KeepAliveRequest},
    },
    identity::{Identity, PeerIdentity, Pem},
};

const PROBE: &str = "meshwork.registry.v1.RegistryService";
const DEREGISTER: &str = "meshwork.registry.v1.RegistryService/Deregister";
const STRICT: fn(Identity) -> Security = Security::Strict;
const PERMISSIVE: fn(Identity) -> Security = Security::Permissive;

fn rule(callers: &[&str], methods: &[&str]) -> AuthorizationRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    AuthorizationRule { callers: owned(callers), methods: owned(methods) }
}

/// Rules of version 7 that let these callers call these methods.
fn allowing(callers: &[&str], methods: &[&str]) -> AuthorizationPolicy {
    let allow = vec![rule(callers, methods)];
    AuthorizationPolicy { service: "probe".into(), allow, etag: "7".into(), ..AuthorizationPolicy::default() }
}

fn known(policy: &AuthorizationPolicy) -> Knowledge {
    Knowledge::Rules(Arc::new(Rules::new(policy).expect("good rules")))
}

/// A probe whose rules a test sets.
struct Guarded {
    authority: Authority,
    rules: watch::Sender<Knowledge>,
    running: Running,
}

impl Guarded {
    fn start(security: fn(Identity) -> Security, knowledge: Knowledge, change: impl FnOnce(Server) -> Server) -> Self {
        Self::configured(config(), security, knowledge, change)
    }

    fn configured(
        config: Config,
        security: fn(Identity) -> Security,
        knowledge: Knowledge,
        change: impl FnOnce(Server) -> Server,
    ) -> Self {
        let authority = Authority::new("shop.test");
        let security = security(identity(&authority, "service/probe"));
        let (rules, told) = watch::channel(knowledge);
        let running = run(config, |server| change(server.security(security).authorization_rules(told)));
        Self { authority, rules, running }
    }

    /// A connection of this identity, or in plain text.
    async fn connect(&self, path: &str) -> Connection {
        let pipe = self.running.pipe().await;
        if path.is_empty() {
            return connect_over(pipe).await.expect("the server answers");
        }
        let client = identity(&self.authority, path);
        let (stream, _) = client.connect("probe", pipe).await.expect("a handshake");
        connect_over(stream).await.expect("the server answers")
    }

    async fn client(&self, path: &str) -> RegistryServiceClient<Connection> {
        client(self.connect(path).await)
    }

    /// How a unary call of this identity ends.
    async fn call(&self, path: &str) -> Code {
        self.client(path).await.deregister(unary("")).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    async fn health(&self, path: &str) -> ServingStatus {
        let mut health = HealthClient::with_origin(self.connect(path).await, http::Uri::from_static("http://probe"));
        let answer = health.check(HealthCheckRequest { service: PROBE.into() }).await.expect("always open");
        answer.into_inner().status()
    }
}

fn identity(authority: &Authority, path: &str) -> Identity {
    let issued = authority.issue(path);
    let [certificate, key, bundle] = [issued.certificate, issued.key, issued.bundle].map(String::into_bytes);
    Identity::from_pem(Pem { certificate, key, bundle }).expect("a good identity")
}

/// The reason, and what it says about the rule set, the caller and the method.
fn not_allowed(status: &Status) -> [String; 4] {
    let details = status.get_error_details();
    let info = details.error_info().expect("given");
    assert_eq!(info.domain, "server.meshwork");
    let said = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
    [info.reason.clone(), said("rule_set"), said("caller"), said("method")]
}

#[tokio::test]
async fn a_caller_without_right_is_told_why_and_its_call_takes_no_place() {
    let mut policy = allowing(&["service/*"], &[DEREGISTER]);
    policy.deny =
        vec![rule(&["operator/*"], &["a.C/*"]), rule(&["service/eve"], &["meshwork.registry.v1.RegistryService/*"])];
    let mut config = config();
    config.limits.concurrent_calls = 1;
    let guarded = Guarded::configured(config, STRICT, known(&policy), |server| server);
    let mut query = guarded.client("service/query").await;
    let mut waiting = query.clone();
    let waiting = tokio::spawn(async move { waiting.deregister(unary("wait")).await });
    guarded.running.probe.until(|seen| seen.started == 1).await;

    let ada = guarded.client("operator/ada").await.deregister(unary("")).await.expect_err("denied");
    let eve = guarded.client("service/eve").await.deregister(unary("")).await.expect_err("denied");
    let stream = query.watch(stream_of("")).await.expect_err("denied");

    assert_eq!(ada.code(), Code::PermissionDenied);
    assert_eq!(ada.message(), format!("the rules of probe (etag 7) do not allow operator/ada to call {DEREGISTER}"));
    assert_eq!(not_allowed(&ada), ["NOT_ALLOWED", "probe (etag 7)", "operator/ada", DEREGISTER]);
    assert_eq!(
        eve.message(),
        format!("rule deny[1] of probe (etag 7) does not allow service/eve to call {DEREGISTER}")
    );
    assert_eq!(not_allowed(&eve), ["NOT_ALLOWED", "probe (etag 7) deny[1]", "service/eve", DEREGISTER]);
    assert_eq!((stream.code(), &*not_allowed(&stream)[3]), (Code::PermissionDenied, &*format!("{PROBE}/Watch")));
    assert_eq!((header(&ada, "meshwork-refused"), header(&ada, "meshwork-instance")), (None, Some("probe-1")));
    let full = query.deregister(unary("")).await.expect_err("the only place is taken");
    assert_eq!(header(&full, "meshwork-refused"), Some("overloaded"), "the others were not asked to wait for it");
    assert_eq!(guarded.running.probe.seen().started, 1);
    guarded.running.probe.release();
    waiting.await.expect("no panic").expect("allowed");
}

#[tokio::test]
async fn a_rule_that_changes_holds_from_the_next_call_on_the_same_connection() {
    let guarded = Guarded::start(STRICT, Knowledge::NEVER_SET, |server| server);
    let mut query = guarded.client("service/query").await;
    query.deregister(unary("")).await.expect("there are no rules");
    let mut stream = query.watch(stream_of("")).await.expect("served").into_inner();
    stream.message().await.expect("the first");

    guarded.rules.send_replace(known(&allowing(&["service/order"], &[DEREGISTER])));
    query.deregister(unary("")).await.expect_err("denied");
    assert_eq!(guarded.call("service/order").await, Code::Ok);

    guarded.rules.send_replace(known(&allowing(&["service/query"], &["meshwork.registry.v1.RegistryService/*"])));
    query.deregister(unary("")).await.expect("allowed");
    assert_eq!(guarded.call("service/order").await, Code::PermissionDenied);

    guarded.rules.send_replace(Knowledge::NEVER_SET);
    assert_eq!(guarded.call("service/order").await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_its_rules_is_closed_and_says_so_until_it_does() {
    for (security, path) in [(STRICT, "operator/ada"), (PERMISSIVE, "operator/ada"), (PERMISSIVE, "")] {
        let (logged, _guard) = Logged::here();
        let mut serving = crate::health::Condition::default();
        let guarded = Guarded::start(security, Knowledge::Unknown, |server| {
            serving = server.serving();
            server
        });
        let refused = guarded.client(path).await.deregister(unary("")).await.expect_err("closed");
        assert_eq!((refused.code(), header(&refused, "meshwork-refused")), (Code::Unavailable, Some("rules-unknown")));
        assert_eq!(
            refused.message(),
            "the authorization rules of probe are not known yet: not all registries have answered, and the cache has none"
        );
        assert_eq!(not_allowed(&refused)[0], "RULES_UNKNOWN");
        assert_eq!(guarded.health(path).await, ServingStatus::NotServing);
        assert!(serving.problem().is_some(), "long streams know");
        let lines = |part: &str| logged.lines().iter().filter(|line| line.contains(part)).count();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lines("calls are refused until then"), 1);

        guarded.rules.send_replace(Knowledge::NEVER_SET);

        assert_eq!(guarded.call(path).await, Code::Ok);
        serving.changed().await;
        assert_eq!((serving.problem(), guarded.health(path).await), (None, ServingStatus::Serving));
        assert_eq!(lines("calls are served"), 1);
        assert_eq!(guarded.running.probe.seen().started, 1);
    }
    let plain = Guarded::start(|_| Security::Plain, Knowledge::Unknown, |server| server);
    assert_eq!((plain.call("").await, plain.health("").await), (Code::Ok, ServingStatus::Serving));
}

#[tokio::test]
async fn what_the_mesh_works_by_is_for_its_consumers_and_operators_in_strict_mode() {
    let pong = |server: Server| server.add_mesh_service_for(&["service/customer", "service/query"], Pong);
    let ping = async |guarded: &Guarded, path: &str| {
        let mut grpc =
            tonic::client::Grpc::with_origin(guarded.connect(path).await, http::Uri::from_static("http://probe"));
        grpc.ready().await.expect("open");
        let path = http::uri::PathAndQuery::from_static("/test.Pong/Ping");
        let codec = tonic_prost::ProstCodec::<String, String>::default();
        // Its answer is a status alone.
        match grpc.unary(Request::new(String::new()), path, codec).await {
            Err(status) if status.code() == Code::PermissionDenied => status.message().to_owned(),
            Ok(_) | Err(_) => "open".to_owned(),
        }
    };
    let guarded = Guarded::start(STRICT, Knowledge::NEVER_SET, pong);
    for path in ["service/customer", "service/query", "operator/ada"] {
        assert_eq!(ping(&guarded, path).await, "open", "{path}");
    }
    assert_eq!(
        ping(&guarded, "service/order").await,
        "test.Pong/Ping is for operators, service/customer and service/query only, and not for service/order"
    );
    assert_eq!(guarded.call("service/order").await, Code::Ok, "the user's services are open");
    guarded.rules.send_replace(known(&allowing(&["service/order"], &["test.Pong/*"])));
    assert_eq!(ping(&guarded, "service/order").await, "open");
    assert_eq!(ping(&guarded, "service/query").await, "open", "as before");
    let open = Guarded::start(PERMISSIVE, Knowledge::NEVER_SET, pong);
    assert_eq!(ping(&open, "").await, "open");
    assert_eq!(ping(&open, "service/order").await, "open");
}

#[tokio::test]
async fn health_is_open_whatever_the_rules_say() {
    let mut policy = allowing(&["service/order"], &[DEREGISTER]);
    policy.deny = vec![rule(&["*"], &["a.C/*"])];
    let guarded = Guarded::start(PERMISSIVE, known(&policy), |server| server);
    for path in ["", "service/eve"] {
        assert_eq!(
            (guarded.health(path).await, guarded.call(path).await),
            (ServingStatus::Serving, Code::PermissionDenied)
        );
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_logs_what_it_would_deny_and_denies_nothing() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = ::metrics::set_default_local_recorder(&recorder);
    let (logged, _guard) = Logged::here();
    let rules = known(&allowing(&["service/order"], &[DEREGISTER]));
    let guarded = Guarded::start(PERMISSIVE, rules.clone(), |mut server| {
        server.0.config.authorization = Enforcement::Log;
        server
    });
    for _ in 0..3 {
        assert_eq!(guarded.call("").await, Code::Ok);
    }
    guarded.rules.send_replace(Knowledge::Unknown);
    assert_eq!((guarded.call("").await, guarded.health("").await), (Code::Ok, ServingStatus::Serving));
    let enforced = Guarded::start(PERMISSIVE, rules, |server| server);
    assert_eq!(enforced.call("service/eve").await, Code::PermissionDenied);

    let told = recorder.handle().render();
    for (reason, enforced, count) in
        [("no_allow_rule", false, 3), ("rules_unknown", false, 1), ("no_allow_rule", true, 1)]
    {
        let line = format!(r#"meshwork_server_denied_total{{reason="{reason}",enforced="{enforced}"}} {count}"#);
        assert!(told.lines().any(|told| told == line), "{line}\nis not in\n{told}");
    }
    let lines: Vec<_> = logged.lines().into_iter().filter(|line| line.starts_with("a call ")).collect();
    let said = format!(
        "a call would be denied, and was let through reason=\"no_allow_rule\" rules=\"probe (etag 7)\" \
         caller=\"anonymous\" method=\"{DEREGISTER}\""
    );
    assert_eq!(lines.len(), 3, "each once: {lines:?}");
    assert_eq!(lines[0], said);
    assert!(lines[2].starts_with("a call was denied reason="), "{lines:?}");
}

#[tokio::test]
async fn what_is_said_of_a_denied_call_is_short_and_printable_whatever_was_called() {
    let (logged, _guard) = Logged::here();
    let guarded = Guarded::start(PERMISSIVE, known(&allowing(&["service/order"], &[DEREGISTER])), |server| server);
    let mut connection = guarded.connect("").await;
    let method = format!("{PROBE}/{}", "%1b[31m\u{202e}".repeat(500));
    let request = http::Request::post(format!("http://probe/{method}")).header("content-type", "application/grpc");
    let answer = connection.call(request.body(Body::empty()).expect("a request")).await.expect("an answer");
    let status = Status::from_header_map(answer.headers()).expect("an error");
    assert_eq!(status.code(), Code::PermissionDenied);
    let lines = logged.lines();
    let line = lines.iter().find(|line| line.starts_with("a call was denied")).expect("logged");
    for said in [status.message(), line] {
        assert!(said.len() < 500 && said.is_ascii() && said.contains(PROBE), "{said}");
    }
}

/// The end user and the caller that a handler, or a layer, sees.
fn noting(seen: mpsc::Sender<(Option<String>, String)>) -> impl Fn(Server) -> Server {
    move |server| {
        let seen = seen.clone();
        server.layer(InterceptorLayer::new(move |request: Request<()>| {
            let subject =
                request.metadata().get("meshwork-subject").map(|value| value.to_str().expect("text").to_owned());
            let caller = request.extensions().get::<PeerIdentity>().expect("always there").name().to_owned();
            seen.send((subject, caller)).expect("the test is there");
            Ok(request)
        }))
    }
}

#[tokio::test]
async fn a_header_that_names_an_end_user_is_believed_only_of_a_verified_caller_that_the_rules_name() {
    let (seen, calls) = mpsc::channel();
    let mut policy = allowing(&["*"], &[DEREGISTER]);
    policy.subject_callers = vec!["service/gateway".into()];
    let rules = || known(&policy);
    for (security, knowledge, path, kept) in [
        (STRICT, rules(), "service/gateway", true),
        (PERMISSIVE, rules(), "service/gateway", true),
        (STRICT, rules(), "service/query", false),
        (STRICT, rules(), "operator/gateway", false),
        (PERMISSIVE, rules(), "", false),
        (STRICT, Knowledge::NEVER_SET, "service/gateway", false),
        (|_| Security::Plain, rules(), "", false),
    ] {
        let guarded = Guarded::start(security, knowledge, noting(seen.clone()));
        let mut client = guarded.client(path).await;
        client.deregister(with_header(unary(""), "meshwork-subject", "ada")).await.expect("served");
        let caller = if path.is_empty() { "anonymous" } else { path };
        assert_eq!(calls.recv(), Ok((kept.then(|| "ada".to_owned()), caller.to_owned())));
    }
}

#[tokio::test]
#[should_panic(expected = "\"query\" has no kind: write \"service/query\" or \"operator/query\"")]
async fn a_consumer_that_is_named_wrongly_is_a_programmers_error() {
    let _ = Server::new(config()).add_mesh_service_for(&["query"], Pong);
}

#[tokio::test]
async fn a_stream_ends_when_the_right_to_it_is_taken_away_and_no_other_does() {
    let guarded = Guarded::start(STRICT, Knowledge::NEVER_SET, |server| server);
    let open = async |caller| {
        let mut client = guarded.client(caller).await;
        let (requests, sent) = tokio::sync::mpsc::channel(1);
        let both_ways = client.keep_alive(ReceiverStream::new(sent)).await.expect("served").into_inner();
        let answers = client.watch(stream_of("stubborn")).await.expect("served").into_inner();
        (requests, both_ways, answers)
    };
    let (_requests, mut both_ways, mut answers) = open("service/query").await;
    let (requests, mut kept, mut watched) = open("service/order").await;
    for first in [&mut answers, &mut watched] {
        first.next().await.expect("a message").expect("no error");
    }

    // It changes nothing for either, and the next only for one.
    guarded.rules.send_replace(known(&allowing(&["service/*"], &["meshwork.registry.v1.RegistryService/*"])));
    guarded.rules.send_replace(known(&allowing(&["service/order"], &["meshwork.registry.v1.RegistryService/*"])));

    let ended = [
        soon(both_ways.next()).await.expect("a status").map(drop).expect_err("ended"),
        soon(answers.next()).await.expect("a status").map(drop).expect_err("ended"),
    ];
    for (status, method) in ended.iter().zip(["KeepAlive", "Watch"]) {
        let method = format!("{PROBE}/{method}");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert_eq!(not_allowed(status), ["NOT_ALLOWED", "probe (etag 7)", "service/query", &method]);
    }
    guarded.running.probe.until(|seen| seen.alive == 2).await;
    requests.send(KeepAliveRequest { lease_id: "1".into() }).await.expect("open");
    assert_eq!(kept.next().await.expect("no end").expect("no error").lease_id, "1");
    assert!(futures_util::FutureExt::now_or_never(watched.next()).is_none(), "it goes on");
}

#[tokio::test]
async fn an_upload_ends_when_the_right_to_it_is_taken_away_though_its_caller_reads_no_answer() {
    /// More than a client of hyper takes before it is read.
    const UNREAD: usize = 8 << 20;
    let (answering, mut is_answering) = tokio::sync::mpsc::unbounded_channel();
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let guarded = Guarded::start(STRICT, Knowledge::NEVER_SET, |server| {
        within(server, move |_, request| {
            let (answering, ended) = (answering.clone(), ended.clone());
            tokio::spawn(async move { ended.send(request.into_body().collect().await.map(drop)) });
            let answers = tokio_stream::once(()).map(move |()| {
                answering.send(()).expect("the test waits");
                Ok::<_, Status>(Frame::data(bytes::Bytes::from(vec![0; UNREAD])))
            });
            let answer = http::Response::builder().header("content-type", "application/grpc");
            let body = Body::new(StreamBody::new(answers.chain(tokio_stream::pending())));
            ready(Ok(answer.body(body).expect("made")))
        })
    });
    let mut client = guarded.client("service/query").await;
    let (_requests, sent) = tokio::sync::mpsc::channel(1);
    let _unread = client.keep_alive(ReceiverStream::new(sent)).await.expect("served");
    soon(is_answering.recv()).await.expect("it has begun");
    guarded.rules.send_replace(known(&allowing(&["service/order"], &[DEREGISTER])));
    let status = soon(has_ended.recv()).await.expect("told").expect_err("cut");
    assert_eq!((status.code(), &*not_allowed(&status)[2]), (Code::PermissionDenied, "service/query"));
}

#[tokio::test]
async fn an_upload_ends_when_the_right_to_it_is_taken_away_before_it_is_answered() {
    let started = Arc::new(tokio::sync::Notify::new());
    let guarded = Guarded::start(STRICT, Knowledge::NEVER_SET, |server| {
        let started = started.clone();
        within(server, move |_, _| {
            started.notify_one();
            pending()
        })
    });
    let mut client = guarded.client("service/query").await;
    let (_requests, sent) = tokio::sync::mpsc::channel(1);
    let upload = tokio::spawn(async move { client.keep_alive(ReceiverStream::new(sent)).await.map(drop) });
    started.notified().await;
    guarded.rules.send_replace(known(&allowing(&["service/order"], &[DEREGISTER])));
    let status = soon(upload).await.expect("no panic").expect_err("ended");
    assert_eq!((status.code(), &*not_allowed(&status)[2]), (Code::PermissionDenied, "service/query"));
}
