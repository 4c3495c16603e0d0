//! A server's membership of the mesh: announced while it serves, and no client picks it any more when it closes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Config, ServedStore, StoreScope, methods::Methods};
use crate::{
    contract::meshwork::registry::v1::{
        Instance, InstanceStatus, StoreScope as ContractScope, registry_service_client::RegistryServiceClient,
    },
    discovery::announce::{AnnounceError, Announced, Announcer, Announcers, Gate, Registration, Seen, Voice},
    health::Condition,
    instance::{MAX_STORE_PLACE_LEN, check_methods},
    rpc::Transport,
};

/// For the registry to confirm that we drain, and for our own watch to show it. If the registry is unreachable,
/// waiting longer would not help.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// From the change's arrival at our own watch to that at all others: the registry sends it to all watchers at once.
const SETTLE: Duration = Duration::from_millis(50);

/// How a server is announced. The transport is erased here, so that the server is not generic over it.
pub(crate) struct Announce {
    start: Box<dyn FnOnce(Registration) -> Announcers + Send>,
    seen: Seen,
}

impl Announce {
    /// At each of these registries, where its gate lets it. `seen` ends when a watch of this process has come to that revision.
    pub(crate) fn new<T, F>(
        registries: Vec<(RegistryServiceClient<T>, Gate)>,
        seen: impl Fn(Announced) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Transport,
        F: Future<Output = ()> + Send + 'static,
    {
        let start = move |registration: Registration| {
            let announcer = |(registry, gate)| Announcer::start(registry, gate, registration.clone());
            Announcers::new(registries.into_iter().map(announcer).collect())
        };
        Self { start: Box::new(start), seen: Box::new(move |announced| Box::pin(seen(announced))) }
    }
}

/// A server's part in the mesh, or in none.
pub(super) struct Membership(Option<Member>);

struct Member {
    announcers: Announcers,
    seen: Seen,
}

impl Membership {
    /// Begins to announce the server; it takes calls from now on, whether the registry is reachable or not.
    pub(super) fn join(announce: Option<Announce>, registration: Registration) -> Self {
        Self(announce.map(|Announce { start, seen }| Member { announcers: start(registration), seen }))
    }

    /// Waits until the server can no longer be part of the mesh. Not to be asked again after that.
    pub(super) async fn failed(&mut self) -> AnnounceError {
        match &mut self.0 {
            Some(member) => member.announcers.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Whether registries admit the server.
    pub(super) fn admissions(&self) -> impl Iterator<Item = Condition> {
        self.0.iter().flat_map(|member| member.announcers.admissions())
    }

    /// What reports the server's state to the mesh; `None` outside of a mesh.
    pub(super) fn voice(&self) -> Option<Voice> {
        self.0.as_ref().map(|member| member.announcers.voice())
    }

    /// Reports that the server drains, until all watchers know, and returns what is left to do: to leave.
    pub(super) async fn drain(self) -> Leaving {
        let Some(Member { mut announcers, seen }) = self.0 else { return Leaving(None) };
        let told = announcers.set_status(InstanceStatus::Draining, &seen);
        match timeout(TELL_LIMIT, told).await {
            Ok(()) => sleep(SETTLE).await,
            Err(_) => tracing::warn!("the registry did not confirm that this instance is draining; stopping anyway"),
        }
        Leaving(Some(announcers))
    }
}

/// A membership that only has to be given back.
pub(super) struct Leaving(Option<Announcers>);

impl Leaving {
    pub(super) async fn leave(self) {
        if let Some(announcers) = self.0 {
            announcers.leave().await;
        }
    }
}

/// The server as the registry is to know it.
pub(super) fn instance(
    config: &Config,
    services: &BTreeSet<String>,
    methods: &Methods,
    store: Option<ServedStore>,
) -> Instance {
    // Of a place that is too long the end tells it from others.
    let (store_id, store_place, scope) = store.map_or_else(Default::default, |store| {
        let scope = match store.scope {
            StoreScope::Service => ContractScope::Service,
            StoreScope::Instance => ContractScope::Instance,
        };
        let skipped = store.place.chars().count().saturating_sub(MAX_STORE_PLACE_LEN);
        (store.store_id, store.place.chars().skip(skipped).collect(), scope)
    });
    Instance {
        grpc_services: services.iter().cloned().collect(),
        idempotent_methods: methods.idempotent(),
        status: InstanceStatus::Serving.into(),
        store_id,
        store_place,
        store_scope: scope.into(),
        takes_pings: true,
        ..config.instance()
    }
}

/// The methods as the registry is to know them. Those that it would not take are unknown to it: they do not keep the server out.
pub(super) fn methods(methods: &Methods) -> Arc<[String]> {
    let names = methods.names();
    match check_methods(&names) {
        Ok(()) => names.into(),
        Err(problem) => {
            tracing::warn!(%problem, "the registry does not learn this server's methods, and takes rules for any");
            Arc::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;

    /// Those of a service with so many methods.
    fn of(number: usize) -> Methods {
        let method = |n| MethodDescriptorProto { name: Some(format!("M{n}")), ..MethodDescriptorProto::default() };
        let service = ServiceDescriptorProto {
            name: Some("B".into()),
            method: (0..number).map(method).collect(),
            ..ServiceDescriptorProto::default()
        };
        let file =
            FileDescriptorProto { package: Some("a".into()), service: vec![service], ..FileDescriptorProto::default() };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        Methods::read(&[&encoded], &["a.B".to_owned()].into()).expect("descriptors")
    }

    #[test]
    fn a_server_with_more_methods_than_a_registry_takes_tells_none() {
        for (number, told) in [(2, 2), (4096, 4096), (4097, 0)] {
            assert_eq!(methods(&of(number)).len(), told, "{number}");
        }
    }
}
