//! The services that every server has beside its own: gRPC health and reflection.

use std::{collections::BTreeSet, convert::Infallible};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::{Builder, Error};
use tower::Service;

/// Services under their full names.
#[derive(Default)]
pub(super) struct Services {
    pub(super) routes: Routes,
    pub(super) names: BTreeSet<String>,
}

impl Services {
    pub(super) fn add<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let Self { routes, mut names } = self;
        names.insert(S::NAME.to_owned());
        Self { routes: routes.add_service(service), names }
    }

    /// Adds health, as `reporter` is told of it, and reflection in the version that clients ask for first and in the one that
    /// older ones know. `descriptors` are those of all services, these included.
    pub(super) fn with_infrastructure(
        self,
        descriptors: &[&'static [u8]],
        reporter: HealthReporter,
    ) -> Result<Self, Error> {
        let service = tonic_health::server::HealthService::from_health_reporter(reporter);
        let service = tonic_health::pb::health_server::HealthServer::new(service);
        let described = |names: &BTreeSet<String>| {
            let sets = descriptors.iter().copied();
            let builder = sets.fold(Builder::configure(), Builder::register_encoded_file_descriptor_set);
            // Named one by one: descriptors may declare services that this server does not serve.
            names.iter().fold(builder, Builder::with_service_name)
        };
        let with_health = self.add(service);
        let mut names = with_health.names.clone();
        names.extend(REFLECTION.map(str::to_owned));
        let (v1, v1alpha) = (described(&names).build_v1()?, described(&names).build_v1alpha()?);
        Ok(with_health.add(v1).add(v1alpha))
    }
}

/// The descriptors of these services.
pub(super) const DESCRIPTORS: [&[u8]; 3] = [
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// What reflection calls itself.
const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
