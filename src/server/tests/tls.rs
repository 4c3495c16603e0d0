//! Connections with identities: who is let in, how long it stays, and what a handler is told.

use meshwork_fixture::Authority;
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use tonic::Code;

use super::{logged::Logged, *};
use crate::{
    contract::meshwork::registry::v1::{DeregisterRequest, WatchRequest},
    identity::{Identity, Security, tests::identity},
};

/// A server of the service `probe` in a trust domain.
struct World {
    authority: Authority,
    running: Running,
}

impl World {
    fn strict() -> Self {
        Self::new(config(), Security::Strict)
    }

    fn new(config: Config, security: impl FnOnce(Identity) -> Security) -> Self {
        let authority = Authority::new("shop.test");
        let security = security(identity(&authority.issue("service/probe")));
        Self { running: run(config, |server| server.security(security)), authority }
    }

    async fn client_of(&self, caller: &Identity) -> RegistryServiceClient<Connection> {
        let (stream, _) = caller.connect("probe", self.running.pipe().await).await.expect("a good handshake");
        client(connect_over(stream).await.expect("the server answers"))
    }
}

/// Whom a handler says that it is called by.
async fn caller(client: &mut RegistryServiceClient<Connection>) -> String {
    let mut request =
        with_header(DeregisterRequest { lease_id: "identity".into() }, "meshwork-identity", "operator/eve");
    request.extensions_mut().insert(crate::identity::PeerIdentity::ANONYMOUS);
    soon(client.deregister(request)).await.expect_err("as told").message().to_owned()
}

#[tokio::test]
async fn a_handler_is_told_the_callers_identity_of_its_certificate_and_not_of_a_header() {
    let world = World::strict();
    for path in ["service/query", "operator/ada"] {
        let mut client = world.client_of(&identity(&world.authority.issue(path))).await;
        assert_eq!(caller(&mut client).await, path);
    }
    world.running.stop().await.expect("in order");
}

#[tokio::test]
async fn a_permissive_port_takes_both_at_once_and_a_plain_caller_is_anonymous() {
    let world = World::new(config(), Security::Permissive);
    let mut plain = world.running.client().await;
    let mut tls = world.client_of(&identity(&world.authority.issue("service/query"))).await;
    assert_eq!((caller(&mut plain).await, caller(&mut tls).await), ("anonymous".into(), "service/query".into()));
    world.running.stop().await.expect("in order");
}

#[tokio::test]
async fn a_client_in_plain_text_is_told_that_the_port_takes_tls_and_so_is_the_servers_log() {
    let (logged, _guard) = Logged::here();
    let world = World::strict();
    let mut client = world.running.client().await;
    let refused = soon(client.deregister(DeregisterRequest::default())).await.expect_err("no TLS");
    let told = crate::cause::with_causes(&refused);
    assert!(told.contains("this port takes TLS connections only"), "{told}");
    world.running.stop().await.expect("in order");
    assert!(
        logged.lines().join("\n").contains("a peer speaks plain text to this port, which takes TLS only"),
        "{:?}",
        logged.lines()
    );
}

#[tokio::test]
async fn a_client_that_speaks_tls_to_a_plain_port_is_told_so_and_so_is_the_servers_log() {
    let (logged, _guard) = Logged::here();
    let authority = Authority::new("shop.test");
    let running = run(config(), |server| server);
    let connecting = identity(&authority.issue("service/query"));
    let refused = soon(connecting.connect("probe", running.pipe().await)).await.expect_err("no TLS").to_string();
    assert!(refused.contains("does not speak TLS; it may run in plain mode"), "{refused}");
    running.stop().await.expect("in order");
    assert!(
        logged.lines().join("\n").contains("a peer speaks TLS to this port, which is in plain mode"),
        "{:?}",
        logged.lines()
    );
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_finished_is_cut_and_others_do_not_wait_for_it() {
    let (logged, _guard) = Logged::here();
    let world = World::strict();
    let mut silent = world.running.pipe().await;
    // The header of a record that never comes.
    silent.write_all(&[0x16, 3, 1, 2, 0]).await.expect("room");
    let begin = Instant::now();
    let mut client = world.client_of(&identity(&world.authority.issue("service/query"))).await;
    assert_eq!(caller(&mut client).await, "service/query");
    assert!(begin.elapsed() < Limits::default().handshake_time);
    let mut rest = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest)).await.expect("cut");
    assert_eq!(begin.elapsed(), Limits::default().handshake_time);
    world.running.stop().await.expect("in order");
    assert!(logged.lines().join("\n").contains("did not finish its TLS handshake in time"), "{:?}", logged.lines());
}

#[tokio::test(start_paused = true)]
async fn who_has_shown_no_identity_keeps_nobody_out_who_has_one() {
    let (logged, _guard) = Logged::here();
    let mut config = config();
    (config.limits.connections, config.limits.handshakes) = (2, 3);
    let world = World::new(config, Security::Strict);
    let query = identity(&world.authority.issue("service/query"));
    let mut first = world.client_of(&query).await;
    assert_eq!(caller(&mut first).await, "service/query");
    let begin = Instant::now();
    let mut half_open = Vec::new();
    for _ in 0..50 {
        let mut pipe = world.running.pipe().await;
        pipe.write_all(&[0x16, 3, 1, 2, 0]).await.expect("room");
        half_open.push(pipe);
    }
    let mut second = world.client_of(&query).await;
    assert_eq!([caller(&mut second).await, caller(&mut first).await], ["service/query"; 2]);
    for mut oldest in half_open.drain(..47) {
        let mut rest = Vec::new();
        soon(tokio::io::AsyncReadExt::read_to_end(&mut oldest, &mut rest)).await.expect("cut");
    }
    assert_eq!(begin.elapsed(), Duration::ZERO, "nobody waited for the time of a handshake to pass");
    let line = "it had not begun, and 3 newer ones have come";
    assert_eq!(logged.lines().iter().filter(|logged| logged.contains(line)).count(), 1, "{:?}", logged.lines());
    world.running.stop().await.expect("in order");
}

#[tokio::test]
async fn a_thousand_handshakes_at_once_are_all_made() {
    let world = World::strict();
    let caller_id = identity(&world.authority.issue("service/query"));
    let mut all = JoinSet::new();
    for _ in 0..1000 {
        let (pipe, caller_id) = (world.running.pipe().await, caller_id.clone());
        all.spawn(async move {
            let (stream, _) = caller_id.connect("probe", pipe).await.expect("a handshake");
            let mut client = client(connect_over(stream).await.expect("the server answers"));
            caller(&mut client).await
        });
    }
    let callers = all.join_all().await;
    assert!(callers.len() == 1000 && callers.iter().all(|caller| caller == "service/query"));
    world.running.stop().await.expect("in order");
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_before_its_certificate_first_for_new_calls_and_then_for_streams() {
    let world = World::strict();
    // Both last for an hour.
    let mut client = world.client_of(&identity(&world.authority.issue("service/query"))).await;
    let begin = Instant::now();
    let request = WatchRequest { services: vec!["stubborn".into()], ..WatchRequest::default() };
    let mut stream = soon(client.watch(request)).await.expect("it begins").into_inner();
    let mut closed_to_calls = None;
    let end = loop {
        match timeout(Duration::from_secs(5), stream.message()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => panic!("it ends with a reason"),
            Ok(Err(status)) => break status,
            Err(_) if client.deregister(DeregisterRequest::default()).await.is_err() => {
                closed_to_calls.get_or_insert(begin.elapsed());
            }
            Err(_) => {}
        }
    };
    let lasted = begin.elapsed();
    let between = lasted - closed_to_calls.expect("before the stream");
    assert!((30..=35).contains(&between.as_secs()), "a call that began before has time to end: {between:?}");
    assert_eq!((end.code(), end.message().contains("before its certificate expires")), (Code::Unavailable, true));
    assert!(lasted > Duration::from_secs(3600) / 2 && lasted < Duration::from_secs(3500), "{lasted:?}");
    let refused = soon(client.deregister(DeregisterRequest::default())).await;
    assert!(refused.is_err(), "the connection has ended");
    world.running.stop().await.expect("in order");
}

/// Why a server does not serve.
async fn not_served(server: Server) -> String {
    let served = soon(server.serve(futures_util::stream::pending::<io::Result<DuplexStream>>(), async {})).await;
    crate::cause::with_causes(&served.expect_err("it would not be what was asked for"))
}

#[tokio::test]
async fn a_server_that_asks_for_another_mode_or_identity_than_its_mesh_does_not_serve() {
    let authority = Authority::new("shop.test");
    let issued = |path: &str| identity(&authority.issue(path));
    let order = issued("service/probe");
    let plain = Mesh::connect("127.0.0.1:1").expect("an address");
    let strict = |identity| {
        let mesh = Mesh::builder().registries(["127.0.0.1:1"]).security(Security::Strict(identity));
        mesh.build().expect("a mesh")
    };
    for (mesh, security) in [
        (plain, Security::Strict(order.clone())),
        (strict(order.clone()), Security::Plain),
        (strict(issued("service/other")), Security::Strict(order)),
    ] {
        let refused = not_served(Server::new(config()).security(security).announce(mesh.clone())).await;
        assert!(refused.contains("security: is ") && refused.contains("that of the mesh"), "{refused}");
        mesh.close().await;
    }
}

#[tokio::test]
async fn a_server_in_a_mesh_has_the_rules_of_operators_and_no_others() {
    let mesh = Mesh::connect("127.0.0.1:1").expect("an address");
    let (_rules, told) = tokio::sync::watch::channel(crate::authorization::Knowledge::NEVER_SET);
    for server in [
        Server::new(config()).authorization_rules(told.clone()).announce(mesh.clone()),
        Server::new(config()).announce(mesh.clone()).authorization_rules(told),
    ] {
        let refused = not_served(server).await;
        assert!(refused.contains("authorization_rules: are the mesh's"), "{refused}");
    }
    mesh.close().await;
}

#[tokio::test]
async fn anonymous_peers_of_a_permissive_port_leave_a_quarter_of_the_places() {
    let mut config = config();
    config.limits.connections = 4;
    let world = World::new(config, Security::Permissive);
    let mut anonymous = Vec::new();
    for _ in 0..3 {
        let mut client = world.running.client().await;
        assert_eq!(caller(&mut client).await, "anonymous");
        anonymous.push(client);
    }
    let mut one_more = world.running.client().await;
    soon(one_more.deregister(DeregisterRequest::default())).await.expect_err("the last place is not for it");
    let mut query = world.client_of(&identity(&world.authority.issue("service/query"))).await;
    assert_eq!(caller(&mut query).await, "service/query");
    world.running.stop().await.expect("in order");
}
