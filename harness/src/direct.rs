//! A plain gRPC connection to one process: no discovery, no balancing, nothing repeated.

use std::io;

use meshwork::identity::Identity;
use meshwork_cli::direct::{Direct, Transport};
use meshwork_shop::contract::shop::query::v1::query_service_client::QueryServiceClient;

use crate::shop_processes::Instance;

/// Asks one instance of query: the mesh would ask any of them. With an identity by TLS.
pub async fn query(instance: &Instance, identity: Option<&Identity>) -> io::Result<QueryServiceClient<Transport>> {
    let address = instance.address().ok_or_else(|| io::Error::other("it does not run"))?;
    let Direct { transport, origin } =
        Direct::connect(&address.to_string(), identity, Some(instance.service())).await?;
    Ok(QueryServiceClient::with_origin(transport, origin))
}
