//! The mesh in strict mode: who is let in, who may call what, and that rules do not evaporate.

use std::{future::pending, net::SocketAddr};

use meshwork::{
    Mesh,
    contract::{
        grpc::health::v1::{HealthCheckRequest, health_client::HealthClient},
        meshwork::registry::v1::{
            AuthorizationPolicy, AuthorizationRule, ListInstancesRequest, SetAuthorizationPolicyRequest,
            authorization_service_client::AuthorizationServiceClient,
        },
    },
    identity::{Identity, Pem, REGISTRY, Security},
    server::{self, Server},
};
use meshwork_cli::direct::Direct;
use meshwork_fixture::{Authority, Engine, Issued};
use meshwork_process::Listener;
use meshwork_registry::policies::PolicyStore;
use meshwork_shop::contract::shop::{
    customer::v1::{GetCustomerRequest, customer_service_client::CustomerServiceClient},
    order::v1::{OrderState, WatchOrderRequest},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::shop::{STUCK, Shop, usd};

const ORDER: &str = "shop.order.v1.OrderService";

async fn soon<F: Future>(work: F) -> F::Output {
    timeout(STUCK, work).await.expect("it should have ended by now")
}

/// Sets the rules of order: its methods are for these callers.
async fn allow(operator: &Mesh, callers: &[&str], methods: &[&str]) -> Result<(), Status> {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let methods = methods.iter().map(|method| format!("{ORDER}/{method}")).collect();
    let allow = vec![AuthorizationRule { callers: texts(callers), methods }];
    let policy = AuthorizationPolicy { service: "order".into(), allow, ..AuthorizationPolicy::default() };
    let request = SetAuthorizationPolicyRequest { policy: Some(policy) };
    AuthorizationServiceClient::new(operator.to_registry()).set_authorization_policy(request).await.map(drop)
}

/// The code with which a watch of an unknown order is answered: NOT_FOUND by its handler.
async fn watch(shop: &Shop) -> Code {
    let order_id = uuid();
    match shop.orders.clone().watch_order(WatchOrderRequest { order_id }).await {
        Ok(answer) => answer.into_inner().message().await.expect_err("there is no such order").code(),
        Err(status) => status.code(),
    }
}

fn uuid() -> String {
    meshwork::id::new_id().to_string()
}

/// Waits until the rules of order let a watch through to its handler, or no longer do.
async fn until_watched(shop: &Shop, code: Code) {
    soon(async { while watch(shop).await != code {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_pass_from_service_to_service_under_their_identities_and_a_stranger_reaches_none() {
    let shop = Shop::open_with(&Engine::Sqlite, 2, |config| config.tls = true).await;
    let customer = shop.customer(usd(1000)).await;
    let order = soon(shop.settled_order(&customer.customer_id, usd(600))).await;
    assert_eq!(order.state(), OrderState::Approved, "its credit was reserved by another service");
    soon(async { while shop.viewed(&order.order_id, &order.position_token).await.is_err() {} }).await;

    let request = ListInstancesRequest { service: "order".into(), ..ListInstancesRequest::default() };
    let listed = shop.fleet.mesh().registry().list_instances(request).await.expect("for an operator").into_inner();
    let identities: Vec<_> = listed.instances.iter().map(|instance| instance.identity.as_str()).collect();
    assert_eq!(identities, ["spiffe://meshwork.local/service/order"; 2]);

    let address = shop.instances("customer")[0].address.to_string();
    let Direct { transport, origin } = Direct::connect(&address, None, None).await.expect("TCP connects");
    let get = GetCustomerRequest { customer_id: customer.customer_id };
    let refused = CustomerServiceClient::with_origin(transport, origin).get_customer(get).await;
    let refused = meshwork::cause::with_causes(&refused.expect_err("in plain text"));
    assert!(refused.contains("this port takes TLS connections only"), "{refused}");
    shop.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_for_unary_and_streaming_calls_as_soon_as_it_is_set_and_over_a_restart_of_the_registry() {
    let shop = Shop::open_with(&Engine::Sqlite, 1, |config| config.tls = true).await;
    let customer = shop.customer(usd(100_000)).await;
    assert_eq!(watch(&shop).await, Code::NotFound, "without rules it is open to the trust domain");

    let operator = shop.fleet.mesh().clone();
    allow(&operator, &["operator/*"], &["CreateOrder"]).await.expect("an operator's right");
    until_watched(&shop, Code::PermissionDenied).await;
    shop.order(&customer.customer_id, usd(1)).await;
    let get = meshwork_shop::contract::shop::order::v1::GetOrderRequest { order_id: uuid() };
    let denied = shop.orders.clone().get_order(get).await.expect_err("no rule allows it");
    let said = "do not allow operator/admin to call shop.order.v1.OrderService/GetOrder";
    assert!(denied.code() == Code::PermissionDenied && denied.message().contains(said), "{denied}");
    let info = denied.get_details_error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((info.reason.as_str(), info.metadata["caller"].as_str()), ("NOT_ALLOWED", "operator/admin"));

    shop.fleet.abort_registry().await;
    soon(async { while allow(&operator, &["operator/*"], &["CreateOrder"]).await.is_err() {} }).await;
    assert_eq!(watch(&shop).await, Code::PermissionDenied, "a restart has taken no rule away");
    let order = shop.instances("order")[0].instance_id.clone();
    shop.fleet.abort(&order).await;
    soon(async { while watch(&shop).await == Code::Unavailable {} }).await;
    assert_eq!(watch(&shop).await, Code::PermissionDenied, "nor has one of the service");

    allow(&operator, &["operator/*"], &["*"]).await.expect("set");
    until_watched(&shop, Code::NotFound).await;
    shop.fleet.stop().await;
}

fn security(issued: &Issued) -> Security {
    let text = |text: &String| text.clone().into_bytes();
    let pem = Pem { certificate: text(&issued.certificate), key: text(&issued.key), bundle: text(&issued.bundle) };
    Security::Strict(Identity::from_pem(pem).expect("a good identity"))
}

async fn registry(authority: &Authority, address: SocketAddr) -> (SocketAddr, JoinHandle<Result<(), server::Error>>) {
    let listener = Listener::new(TcpListener::bind(address).await.expect("a free port")).expect("bound");
    let address = listener.address();
    let config = meshwork_registry::Config {
        security: security(&authority.issue(&format!("service/{REGISTRY}"))),
        policies: PolicyStore::default(),
        ..meshwork_registry::Config::new(address.to_string())
    };
    (address, tokio::spawn(meshwork_registry::run(config, listener, pending())))
}

fn mesh(registry: SocketAddr, issued: &Issued) -> Mesh {
    Mesh::builder().registries([registry.to_string()]).security(security(issued)).build().expect("a mesh")
}

/// A server of no service of its own, announced as `service` in a mesh.
async fn serve(service: &str, mesh: Mesh) -> (SocketAddr, JoinHandle<Result<(), server::Error>>) {
    let listener = Listener::new(TcpListener::bind("127.0.0.1:0").await.expect("a free port")).expect("bound");
    let address = listener.address();
    let server = Server::new(server::Config::new(service, address.to_string())).announce(mesh);
    (address, tokio::spawn(server.serve(listener, pending())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_right_authority_registers_its_own_name_and_no_other() {
    let authority = Authority::new("shop.test");
    let (address, _registry) = registry(&authority, ([127, 0, 0, 1], 0).into()).await;
    let order = authority.issue("service/order");
    let (_, impostor) = serve("customer", mesh(address, &order)).await;
    let (_, _own) = serve("order", mesh(address, &order)).await;

    let operator = mesh(address, &authority.issue("operator/ada"));
    let mut orders = operator.endpoints("order");
    soon(orders.wait_for(|set| !set.endpoints.is_empty())).await.expect("its own name");
    let request = ListInstancesRequest { service: "customer".into(), ..ListInstancesRequest::default() };
    let listed = operator.registry().list_instances(request).await;
    assert_eq!(listed.expect_err("nothing has registered as customer").code(), Code::NotFound);
    assert!(!impostor.is_finished(), "it keeps trying, and says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_without_a_registry_and_without_a_cache_is_closed_until_it_knows_its_rules() {
    let authority = Authority::new("shop.test");
    let (address, registry_task) = registry(&authority, ([127, 0, 0, 1], 0).into()).await;
    registry_task.abort();
    let _ = registry_task.await;
    let (order, _server) = serve("order", mesh(address, &authority.issue("service/order"))).await;

    let Security::Strict(caller) = security(&authority.issue("service/query")) else { unreachable!("as made") };
    let Direct { transport, origin } =
        soon(Direct::connect(&order.to_string(), Some(&caller), Some("order"))).await.expect("a handshake");
    let health = || {
        let mut client = HealthClient::with_origin(transport.clone(), origin.clone());
        async move { client.check(HealthCheckRequest::default()).await.expect("health is open").into_inner().status() }
    };
    use meshwork::contract::grpc::health::v1::health_check_response::ServingStatus;
    assert_eq!(soon(health()).await, ServingStatus::NotServing, "it is closed, and says so");

    let (_, _registry) = registry(&authority, address).await;
    soon(async { while health().await != ServingStatus::Serving {} }).await;
}
