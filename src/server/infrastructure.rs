//! The services of a server: the user's own, and beside them what every server has, gRPC health and reflection.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tonic_reflection::server::{Builder, Error};
use tower::Service;

use super::health_service::{HealthService, Statuses};
use crate::{
    authorization::{Audience, Callers, OPEN_TO_EVERYONE},
    contract::grpc::health::v1::health_server::HealthServer,
};

/// Services under their full names.
#[derive(Default)]
pub(super) struct Services {
    pub(super) own: Routes,
    pub(super) infrastructure: Routes,
    pub(super) served: BTreeMap<String, Served>,
}

/// A service, by what happens to its calls.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) kind: Kind,
    pub(super) audience: Audience,
}

impl Served {
    /// A user's service.
    pub(super) const OWN: Self = Self { kind: Kind::Own, audience: Audience::Domain };
    const GRPC: Self = Self { kind: Kind::Grpc, audience: Audience::Everyone };

    /// A service by which the mesh works, for operators and these callers.
    pub(super) fn mesh(callers: Callers) -> Self {
        Self { kind: Kind::Mesh, audience: Audience::mesh(callers) }
    }
}

/// Whose a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The user's: calls go through the user's layers.
    Own,
    /// The mesh's: calls go past the layers.
    Mesh,
    /// gRPC's own, health and reflection, which know nothing of our drain and depend on no store: calls go past the layers.
    Grpc,
}

impl Services {
    pub(super) fn add<S>(&mut self, service: S, served: Served)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let kind = served.kind;
        assert!(self.served.insert(S::NAME.to_owned(), served).is_none(), "{} was added before", S::NAME);
        let routes = match kind {
            Kind::Own => &mut self.own,
            Kind::Mesh | Kind::Grpc => &mut self.infrastructure,
        };
        *routes = std::mem::take(routes).add_service(service);
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.served.keys().cloned().collect()
    }

    /// Adds health, as `statuses` says it, and reflection in the version that clients ask for first and in the one that
    /// older ones know. `descriptors` are those of all services, these included.
    pub(super) fn add_health_and_reflection(
        &mut self,
        descriptors: &[&'static [u8]],
        statuses: Statuses,
    ) -> Result<(), Error> {
        let described = |names: &BTreeSet<String>| {
            let sets = descriptors.iter().copied();
            let builder = sets.fold(Builder::configure(), Builder::register_encoded_file_descriptor_set);
            // Named one by one: descriptors may declare services that this server does not serve.
            names.iter().fold(builder, Builder::with_service_name)
        };
        self.add(HealthServer::new(HealthService::new(statuses)), Served::GRPC);
        let mut names = self.names();
        names.extend(OPEN_TO_EVERYONE.map(str::to_owned));
        let (v1, v1alpha) = (described(&names).build_v1()?, described(&names).build_v1alpha()?);
        self.add(v1, Served::GRPC);
        self.add(v1alpha, Served::GRPC);
        Ok(())
    }
}

/// The descriptors of reflection; health's are in the mesh's own.
pub(super) const DESCRIPTORS: [&[u8]; 2] =
    [tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_to_everyone_is_what_every_server_has_of_grpcs_own() {
        let mut services = Services::default();
        let descriptors = DESCRIPTORS.iter().copied().chain([crate::contract::DESCRIPTORS]).collect::<Vec<_>>();
        services.add_health_and_reflection(&descriptors, Statuses::default()).expect("good descriptors");
        assert!(services.served.values().all(|served| served.audience == Audience::Everyone));
        assert!(services.names().iter().eq(OPEN_TO_EVERYONE.iter()));
    }
}
