//! The service in a mesh that runs in the test's own process.

use meshwork_testing::TestMesh;
use tonic::Code;

use {{snake}}::{
    SERVICE,
    contract::{GreetRequest, {{module}}_client::{{Service}}Client},
    server,
};

#[tokio::test]
async fn a_greeting_has_the_name_in_it() {
    let mesh = TestMesh::start().await;
    let _instance = mesh.serve(SERVICE, server).await;
    let mut client = {{Service}}Client::new(mesh.channel(SERVICE));

    let response = client
        .greet(GreetRequest {
            name: "Ada".to_owned(),
        })
        .await
        .unwrap();

    assert_eq!(response.get_ref().greeting, "Hello, Ada!");
}

#[tokio::test]
async fn without_a_name_the_request_is_invalid() {
    let mesh = TestMesh::start().await;
    let _instance = mesh.serve(SERVICE, server).await;
    let mut client = {{Service}}Client::new(mesh.channel(SERVICE));

    let status = client.greet(GreetRequest::default()).await.unwrap_err();

    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "name: is required")
    );
}

#[tokio::test]
async fn an_instance_that_dies_costs_no_call() {
    let mesh = TestMesh::start().await;
    let instance = mesh.serve(SERVICE, server).await;
    let _other = mesh.serve(SERVICE, server).await;
    let mut client = {{Service}}Client::new(mesh.channel(SERVICE));

    instance.kill().await;

    for _ in 0..10 {
        client
            .greet(GreetRequest {
                name: "Ada".to_owned(),
            })
            .await
            .unwrap();
    }
}
