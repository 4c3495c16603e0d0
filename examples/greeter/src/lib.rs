//! The service `greeter`: its contract is in `proto/`, its behaviour is here.

use meshwork::{
    rpc::{Domain, Violations},
    server::{Config, Server},
};
use tonic::{Request, Response, Status};

/// The code that `build.rs` generates from `proto/`.
pub mod contract {
    tonic::include_proto!("greeter.v1");

    /// The contract itself, which servers publish.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
}

use contract::{
    GreetRequest, GreetResponse,
    greeter_service_server::{GreeterService, GreeterServiceServer},
};

/// The name by which clients find the service in the mesh.
pub const SERVICE: &str = "greeter";

/// The domain of the service's errors (`google.rpc.ErrorInfo`).
const DOMAIN: Domain = Domain::new("greeter.example");

/// A server of the service, yet to be announced in a mesh.
pub fn server(config: Config) -> Server {
    Server::new(config)
        .add_service(GreeterServiceServer::new(Handler))
        .descriptors(contract::DESCRIPTORS)
}

/// Answers the calls. Its fields are what all calls share, such as a database.
struct Handler;

#[tonic::async_trait]
impl GreeterService for Handler {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let GreetRequest { name } = request.into_inner();
        let mut violations = Violations::default();
        if name.is_empty() {
            violations.add("name", "is required");
        }
        violations.into_result(DOMAIN)?;
        Ok(Response::new(GreetResponse {
            greeting: format!("Hello, {name}!"),
        }))
    }
}
