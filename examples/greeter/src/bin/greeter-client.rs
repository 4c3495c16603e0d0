//! A client of your own in the mesh: finds every greeter through the registry, and balances its calls over them. One call at a
//! time, as here, stays with the instance that was measured as the fastest, for some seconds; calls at the same time are spread.
//!
//! ```text
//! cargo run --manifest-path examples/greeter/Cargo.toml --bin greeter-client -- Ada Grace
//! ```

use std::time::Duration;

use meshwork::{Mesh, headers};
use tonic::Request;

/// Made from `greeter.proto` by build.rs, as your own build script would.
#[allow(unreachable_pub)]
mod contract {
    tonic::include_proto!("greeter.v1");
}
use contract::{GreetRequest, greeter_service_client::GreeterServiceClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::connect("http://127.0.0.1:7600")?;
    let mut greeter = GreeterServiceClient::new(mesh.channel("greeter"));
    for name in std::env::args().skip(1) {
        let mut request = Request::new(GreetRequest { name });
        request.set_timeout(Duration::from_secs(5));
        let response = match greeter.greet(request).await {
            Ok(response) => response,
            Err(status) => {
                eprintln!("{:?}: {}", status.code(), status.message());
                continue;
            }
        };
        let instance = response.metadata().get(headers::INSTANCE.as_str()).and_then(|id| id.to_str().ok());
        println!("{} (from {})", response.get_ref().greeting, instance.unwrap_or("somebody"));
    }
    mesh.close().await;
    Ok(())
}
