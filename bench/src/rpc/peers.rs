//! Who is measured: channels that an echo client can stand on.

use std::time::Duration;

use meshwork::channel::Channel;

use super::slice::{self, Slice};
use crate::echo::{Echo, contract::echo_service_client::EchoServiceClient, endpoint};

/// A client to measure.
pub(super) enum Peer {
    Meshwork(EchoServiceClient<Channel>),
    Tonic(&'static str, EchoServiceClient<tonic::transport::Channel>),
}

impl Peer {
    /// Meshwork's channel, with everything on.
    pub(super) fn meshwork(echo: &Echo, service: &str) -> Self {
        Self::Meshwork(EchoServiceClient::new(echo.mesh().channel(service)))
    }

    /// tonic's channel to one address.
    pub(super) fn tonic_channel(address: &str) -> Self {
        Self::Tonic("tonic_channel", EchoServiceClient::new(endpoint(address).connect_lazy()))
    }

    /// tonic's channel that balances over a list.
    pub(super) fn tonic_balance(addresses: &[String]) -> Self {
        let list = addresses.iter().map(|address| endpoint(address));
        Self::Tonic("tonic_balance", EchoServiceClient::new(tonic::transport::Channel::balance_list(list)))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Meshwork(_) => "meshwork",
            Self::Tonic(name, _) => name,
        }
    }

    /// Calls it for a while.
    pub(super) async fn drive(&self, in_flight: usize, time: Duration) -> Slice {
        match self {
            Self::Meshwork(client) => slice::drive(client, in_flight, time).await,
            Self::Tonic(_, client) => slice::drive(client, in_flight, time).await,
        }
    }
}
