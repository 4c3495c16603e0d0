//! What a user's tests can rely on.

use std::time::Duration;

use meshwork::{
    contract::grpc::health::v1::{HealthCheckRequest, health_client::HealthClient},
    headers,
    server::Server,
};
use meshwork_testing::TestMesh;
use tonic::{Code, Request, Status};

const SERVICE: &str = "inventory";

/// Which instance answers.
async fn answered_by(mesh: &TestMesh) -> Result<String, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(10));
    let response = HealthClient::new(mesh.channel(SERVICE)).check(request).await?;
    let id = response.metadata().get(headers::INSTANCE.as_str()).and_then(|id| id.to_str().ok());
    Ok(id.expect("an answer of the mesh").to_owned())
}

#[tokio::test]
async fn an_instance_that_serves_is_found_at_once_and_one_that_was_drained_is_gone() {
    let mesh = TestMesh::start().await;
    let instance = mesh.serve(SERVICE, Server::new).await;
    assert_eq!(answered_by(&mesh).await.expect("it serves"), instance.id());

    let mut endpoints = mesh.mesh().endpoints(SERVICE);
    instance.drain().await;

    let gone = tokio::time::timeout(Duration::from_secs(10), endpoints.wait_for(|set| set.endpoints.is_empty())).await;
    assert!(gone.expect("it has left").expect("the mesh is open").known);
}

#[tokio::test]
async fn when_one_of_two_dies_or_drains_the_other_answers() {
    let mesh = TestMesh::start().await;
    let (one, other) = (mesh.serve(SERVICE, Server::new).await, mesh.serve(SERVICE, Server::new).await);
    one.kill().await;
    assert_eq!(answered_by(&mesh).await.expect("the other serves"), other.id());

    let third = mesh.serve(SERVICE, Server::new).await;
    other.drain().await;
    assert_eq!(answered_by(&mesh).await.expect("the third serves"), third.id());
}

#[tokio::test]
async fn a_service_that_is_missing_is_unavailable() {
    let status = answered_by(&TestMesh::start().await).await.expect_err("there is no instance");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn meshes_know_nothing_of_each_other() {
    let (one, other) = (TestMesh::start().await, TestMesh::start().await);
    let _instance = one.serve(SERVICE, Server::new).await;
    assert_eq!(answered_by(&other).await.expect_err("it is in another mesh").code(), Code::Unavailable);
    assert_ne!(one.registry_url(), other.registry_url());
}

#[tokio::test]
async fn an_instance_that_is_dropped_breaks_its_connections() {
    let mesh = TestMesh::start().await;
    let instance = mesh.serve(SERVICE, Server::new).await;
    let address = instance.address().to_owned();
    drop(instance);
    // Each attempt lets the task that was dropped run, and end.
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[should_panic(expected = "does not serve")]
async fn a_server_that_cannot_serve_says_so_at_once() {
    let nameless = |config| Server::new(meshwork::server::Config { instance_id: String::new(), ..config });
    TestMesh::start().await.serve(SERVICE, nameless).await;
}
