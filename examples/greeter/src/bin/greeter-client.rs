//! Calls the service through the mesh, once for each name, and prints which instance has answered:
//! `cargo run --bin greeter-client -- Ada Grace`

use std::{env, error::Error, path::Path, process::ExitCode, time::Duration};

use meshwork::{
    Mesh, headers,
    identity::{Identity, Security, TlsFiles},
    rpc::code_name,
};
use tonic::Request;

use greeter::{
    SERVICE,
    contract::{GreetRequest, greeter_service_client::GreeterServiceClient},
};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    // Registries are used together; empty is unset, as for the server's flag.
    let registries = env::var("MESHWORK_REGISTRY").unwrap_or_default();
    let mut registries: Vec<_> = registries.split(',').map(str::trim).collect();
    registries.retain(|address| !address.is_empty());
    if registries.is_empty() {
        registries.push("http://127.0.0.1:7600");
    }
    let mut mesh = Mesh::builder().registries(registries);
    // A certificate of `meshwork ca issue`: calls are encrypted, and the service knows who calls.
    let folder = env::var_os("MESHWORK_TLS_DIR").unwrap_or_default();
    if !folder.is_empty() {
        let identity = Identity::from_files(TlsFiles::in_folder(Path::new(&folder)))?;
        mesh = mesh.security(Security::Strict(identity));
    }
    let mesh = mesh.build()?;
    let mut client = GreeterServiceClient::new(mesh.channel(SERVICE));
    let mut code = ExitCode::SUCCESS;
    for name in env::args().skip(1) {
        let mut request = Request::new(GreetRequest { name });
        // The deadline of the whole call, retries included.
        request.set_timeout(Duration::from_secs(5));
        match client.greet(request).await {
            Ok(response) => {
                let instance = response.metadata().get(headers::INSTANCE.as_str());
                let instance = instance
                    .and_then(|id| id.to_str().ok())
                    .unwrap_or("unknown");
                println!("{} (from {instance})", response.get_ref().greeting);
            }
            Err(status) => {
                eprintln!("error: {}: {}", code_name(status.code()), status.message());
                code = ExitCode::FAILURE;
            }
        }
    }
    mesh.close().await;
    Ok(code)
}
