//! The service under test: gRPC's `TestService` on a Meshwork server, for the clients of other languages.

use std::process::ExitCode;

use meshwork::server::Server;
use meshwork_interop::{
    contract::{self, test_service_server::TestServiceServer},
    echo::Echo,
    frames::ReadFlags,
    service::{Interop, MAX_MESSAGE},
};
use meshwork_process::{Failure, InstanceArgs, TelemetryArgs};
use tonic::codec::CompressionEncoding;

/// gRPC's test service, for clients of other languages that find it by its address
#[derive(clap::Parser)]
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
            let listener = args.instance.bind().await?.say_ready("interop");
            let mut config = args.instance.config("interop", &listener)?;
            config.limits.message_size = MAX_MESSAGE;
            let service = TestServiceServer::new(Interop { server_id: config.instance_id.clone() })
                .max_decoding_message_size(MAX_MESSAGE)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip);
            let server = Server::new(config)
                .layer(Echo)
                .layer(ReadFlags)
                .add_service(service)
                .descriptors(contract::DESCRIPTORS);
            server.serve(listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
        },
    )
}
