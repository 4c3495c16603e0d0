//! A service of your own in the mesh, beside `cargo mesh up`, as often as you like:
//! `cargo run --manifest-path examples/greeter/Cargo.toml --bin greeter-server`

use std::process::ExitCode;

use meshwork::{
    rpc::{Domain, Violations},
    server::Server,
};
use meshwork_process::{Failure, InstanceArgs, TelemetryArgs};
use tonic::{Request, Response, Status};

/// Made from `greeter.proto` by build.rs, as your own build script would.
#[allow(unreachable_pub)]
mod contract {
    tonic::include_proto!("greeter.v1");
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("greeter");
}
use contract::{
    GreetRequest, GreetResponse,
    greeter_service_server::{GreeterService, GreeterServiceServer},
};

struct Greeter;

#[tonic::async_trait]
impl GreeterService for Greeter {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let name = request.into_inner().name;
        let mut violations = Violations::default();
        if name.is_empty() {
            violations.add("name", "must be given");
        }
        violations.into_result(Domain::new("greeter.example"))?;
        Ok(Response::new(GreetResponse { greeting: format!("Hello, {name}!") }))
    }
}

/// A greeter: a gRPC service in the mesh
#[derive(clap::Parser)]
#[command(version, disable_version_flag = true)]
struct Args {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

fn main() -> ExitCode {
    meshwork_process::main(
        |args: &Args| args.telemetry.clone(),
        async |args, shutdown| {
            let listener = args.instance.bind().await?.say_ready("greeter");
            let server = Server::new(args.instance.config("greeter", &listener)?)
                .add_service(GreeterServiceServer::new(Greeter))
                .descriptors(contract::DESCRIPTORS)
                .announce(args.instance.mesh()?);
            server.serve(listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
        },
    )
}
