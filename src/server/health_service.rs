//! grpc.health.v1: what [`Health`](super::health::Health) says of each name, to those that ask for it, list it or watch it.
//!
//! A watch of an unknown name stays open, and follows the name once it is known. tonic-health would end it, and has no List.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use crate::{
    contract::grpc::health::v1::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus, health_server::Health,
    },
    rpc::SERVER,
};

/// Names that one List returns, at most: the contract's bound.
const MAX_LISTED: usize = 100;
/// Bytes of an unknown name that is watched: the watch keeps it for as long as its caller likes. A registry takes no longer ones.
const MAX_NAME_LEN: usize = 256;

/// The status of each name, as it changes. Clones see the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Statuses(Arc<watch::Sender<BTreeMap<String, ServingStatus>>>);

impl Statuses {
    /// Sets the status of a name, which is known from then on.
    pub(super) fn set(&self, name: &str, status: ServingStatus) {
        self.0.send_if_modified(|statuses| statuses.insert(name.to_owned(), status) != Some(status));
    }
}

/// The service of a server.
pub(super) struct HealthService(Statuses);

impl HealthService {
    pub(super) fn new(statuses: Statuses) -> Self {
        Self(statuses)
    }

    fn now(&self) -> watch::Ref<'_, BTreeMap<String, ServingStatus>> {
        let Statuses(statuses) = &self.0;
        statuses.borrow()
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.now().get(&request.get_ref().service) {
            Some(status) => Ok(Response::new(answer(*status))),
            None => Err(SERVER.error(Code::NotFound, "UNKNOWN_HEALTH_NAME", "this server has no such health name")),
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = self.now();
        if statuses.len() > MAX_LISTED {
            let message =
                format!("this server has {} health names, and a list has at most {MAX_LISTED}", statuses.len());
            return Err(SERVER.error(Code::ResourceExhausted, "TOO_MANY_HEALTH_NAMES", message));
        }
        let statuses = statuses.iter().map(|(name, status)| (name.clone(), answer(*status))).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        if name.len() > MAX_NAME_LEN && !self.now().contains_key(&name) {
            let problem = format!("must be up to {MAX_NAME_LEN} bytes");
            return Err(SERVER.invalid_field("MALFORMED_REQUEST", "service", &problem));
        }
        let Statuses(statuses) = &self.0;
        Ok(Response::new(Box::pin(changes(statuses.subscribe(), name))))
    }
}

/// The status of a name, and then each change of it.
fn changes(
    statuses: watch::Receiver<BTreeMap<String, ServingStatus>>,
    name: String,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    stream::unfold((statuses, name, None), |(mut statuses, name, last)| async move {
        let of = |statuses: &BTreeMap<_, _>| statuses.get(&name).copied().unwrap_or(ServingStatus::ServiceUnknown);
        let status = of(&*statuses.wait_for(|statuses| Some(of(statuses)) != last).await.ok()?);
        Some((Ok(answer(status)), (statuses, name, Some(status))))
    })
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn a_watch_follows_a_name_from_before_it_is_known_and_says_each_change_once() {
        let statuses = Statuses::default();
        let request = Request::new(HealthCheckRequest { service: "later".into() });
        let watch = HealthService::new(statuses.clone()).watch(request).await.expect("watched");
        let mut watch = watch.into_inner();
        let mut next = || watch.next().now_or_never().flatten().map(|said| said.expect("no error").status());
        assert_eq!((next(), next()), (Some(ServingStatus::ServiceUnknown), None));
        statuses.set("another", ServingStatus::Serving);
        assert_eq!(next(), None);
        for status in [ServingStatus::NotServing, ServingStatus::Serving] {
            statuses.set("later", status);
            assert_eq!((next(), next()), (Some(status), None));
            statuses.set("later", status);
            assert_eq!(next(), None, "it has not changed");
        }
    }
}
