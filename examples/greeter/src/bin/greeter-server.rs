//! An instance of the service in the mesh: `cargo run`, as often as you like, beside `cargo mesh up`.
//! SIGTERM and Ctrl-C let the calls under way finish, and end it with exit code 0.

use std::process::ExitCode;

use meshwork_process::{Failure, InstanceArgs, TelemetryArgs};

use greeter::{SERVICE, server};

/// An instance of the service in the mesh
#[derive(clap::Parser)]
#[command(name = "greeter-server", version, disable_version_flag = true)]
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
            let listener = args.instance.bind().await?.say_ready(SERVICE);
            let config = args.instance.config(SERVICE, &listener)?;
            let server = server(config).announce(args.instance.mesh(SERVICE)?);
            server
                .serve(listener, shutdown.cancelled_owned())
                .await
                .map_err(Failure::run)
        },
    )
}
