//! The service that benchmarks call: an echo whose endpoints can be told how to answer.
//!
//! It runs in separate processes (this program's hidden command `echo`), so that its CPU time is not the client's.

mod behaviour;
mod process;
mod server;

pub(crate) use meshwork_caller::{contract, endpoint};
pub(crate) use process::{Echo, Error};
pub(crate) use server::Args;

use std::time::Duration;

use tonic::Request;

use contract::{BehaveRequest, Behaviour, echo_service_client::EchoServiceClient};

/// The service's name in the mesh.
pub(crate) const SERVICE: &str = "echo";

/// Tells the endpoint at `address` how to answer, bypassing any balancing.
pub(crate) async fn behave(
    address: &str,
    behaviour: Behaviour,
    latency: Duration,
    deviation: Duration,
) -> Result<(), Error> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreachable { address: address.to_owned(), source };
    let channel = endpoint(address).connect().await.map_err(|error| failed(error.into()))?;
    let duration = |time: Duration| prost_types::Duration::try_from(time).expect("seconds at most");
    let request = BehaveRequest {
        behaviour: behaviour.into(),
        latency: Some(duration(latency)),
        deviation: Some(duration(deviation)),
    };
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(5));
    EchoServiceClient::new(channel).behave(request).await.map_err(|status| failed(status.into()))?;
    Ok(())
}
