//! How a server is part of the mesh: announced while it serves, and gone from every client's picks before it closes.

use std::{collections::BTreeSet, pin::Pin, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Config, methods::Methods};
use crate::{
    contract::meshwork::registry::v1::{Instance, InstanceStatus, registry_service_client::RegistryServiceClient},
    discovery::announce::{AnnounceError, Announced, Announcer},
    rpc::Transport,
};

/// For the registry to confirm that we drain, and for our own watch to show it. If the registry is away nobody can be
/// told, and waiting longer would help nobody.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// From our own watch's knowing to everybody's: the registry sends a change to all watchers at once.
const SETTLE: Duration = Duration::from_millis(50);

/// Through whom a server is announced. The transport is forgotten here, so that the server is not generic over it.
pub(crate) struct Announce {
    start: Box<dyn FnOnce(Instance, Duration) -> Announcer + Send>,
    seen: Box<dyn FnOnce(Announced) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>,
}

impl Announce {
    /// `seen` ends when a watch of this process has come to that revision.
    pub(crate) fn new<T, F>(
        registry: RegistryServiceClient<T>,
        seen: impl FnOnce(Announced) -> F + Send + 'static,
    ) -> Self
    where
        T: Transport,
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            start: Box::new(move |instance, lease_ttl| Announcer::start(registry, instance, lease_ttl)),
            seen: Box::new(move |announced| Box::pin(seen(announced))),
        }
    }
}

/// A server's part in the mesh, or in none.
pub(super) struct Membership(Option<Member>);

struct Member {
    announcer: Announcer,
    seen: Box<dyn FnOnce(Announced) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>,
}

impl Membership {
    /// Begins to announce the server; it takes calls from now on, whether the registry is there or not.
    pub(super) fn join(announce: Option<Announce>, instance: Instance, lease_ttl: Duration) -> Self {
        Self(announce.map(|Announce { start, seen }| Member { announcer: start(instance, lease_ttl), seen }))
    }

    /// Waits until the server can no longer be part of the mesh. Not to be asked again after that.
    pub(super) async fn failed(&mut self) -> AnnounceError {
        match &mut self.0 {
            Some(member) => member.announcer.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Says that the server drains, until all who watch know, and returns what is left to do: to leave.
    pub(super) async fn drain(self) -> Leaving {
        let Some(Member { mut announcer, seen }) = self.0 else { return Leaving(None) };
        let told = async {
            if let Some(announced) = announcer.set_status(InstanceStatus::Draining).await {
                seen(announced).await;
            }
        };
        match timeout(TELL_LIMIT, told).await {
            Ok(()) => sleep(SETTLE).await,
            Err(_) => tracing::warn!("the registry did not confirm that this instance drains: leaving all the same"),
        }
        Leaving(Some(announcer))
    }
}

/// A membership that only has to be given back.
pub(super) struct Leaving(Option<Announcer>);

impl Leaving {
    pub(super) async fn leave(self) {
        if let Some(announcer) = self.0 {
            announcer.leave().await;
        }
    }
}

/// The server as the registry is to know it.
pub(super) fn instance(config: &Config, services: &BTreeSet<String>, methods: &Methods) -> Instance {
    Instance {
        service: config.service.clone(),
        instance_id: config.instance_id.clone(),
        address: config.advertise.clone(),
        version: config.version.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        labels: config.labels.clone().into_iter().collect(),
        grpc_services: services.iter().cloned().collect(),
        idempotent_methods: methods.idempotent(),
        status: InstanceStatus::Serving.into(),
        create_time: None,
    }
}
