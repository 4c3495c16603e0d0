//! The stream of renewals: one may carry the leases of many instances.
//!
//! A lease that its caller may not touch is answered as one that is unknown, because an error would end the stream and let the
//! other leases on it run out. The caller then registers again, and is told there why it may not.

use std::{sync::Arc, time::Duration};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use meshwork::{
    contract::meshwork::registry::v1::{KeepAliveRequest, KeepAliveResponse, LeaseState},
    identity::PeerIdentity,
    instance::LEASE_TTL,
    rpc::Violations,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{
    Registry, request,
    status::{DOMAIN, status},
    table::{LeaseId, Renewal},
};

/// A stream that renews nothing for this long: every lease that it could have kept has run out.
const IDLE_LIMIT: Duration = *LEASE_TTL.end();

/// The answers of one stream.
pub(crate) type Renewals = BoxStream<'static, Result<KeepAliveResponse, Status>>;

/// Answers `caller`'s renewals one by one, and ends after the first that is malformed. A request is read when the answer to the
/// one before has been taken: there is no queue.
pub(crate) fn renewals<S>(registry: Registry, caller: PeerIdentity, requests: S) -> Renewals
where
    S: Stream<Item = Result<KeepAliveRequest, Status>> + Send + Unpin + 'static,
{
    let caller = Arc::new((registry, caller));
    let responses = stream::unfold(Some(requests), move |requests| {
        let caller = caller.clone();
        async move {
            let (registry, caller) = &*caller;
            let mut requests = requests?;
            let response = match timeout(IDLE_LIMIT, requests.next()).await {
                Ok(request) => match request? {
                    Ok(request) => renew(registry, caller, request).await,
                    Err(error) => Err(error),
                },
                Err(_) => Err(idle()),
            };
            let go_on = response.is_ok();
            Some((response, go_on.then_some(requests)))
        }
    });
    responses.boxed()
}

async fn renew(
    registry: &Registry,
    caller: &PeerIdentity,
    request: KeepAliveRequest,
) -> Result<KeepAliveResponse, Status> {
    let mut violations = Violations::default();
    let lease = request::lease_id(request.lease_id, &mut violations);
    violations.into_result(DOMAIN)?;
    let state = state(registry, caller, &lease).await?;
    Ok(KeepAliveResponse { lease_id: lease.into_string(), state: state.into() })
}

async fn state(registry: &Registry, caller: &PeerIdentity, lease: &LeaseId) -> Result<LeaseState, Status> {
    if let Err(not_allowed) = registry.check_lease(caller, lease).await.map_err(status)? {
        registry.log_refusal(&not_allowed);
        return Ok(LeaseState::Unknown);
    }
    Ok(match registry.backend().renew(lease).await.map_err(status)? {
        Renewal::Renewed => LeaseState::Renewed,
        Renewal::Unknown => LeaseState::Unknown,
        Renewal::Fenced => LeaseState::Fenced,
    })
}

fn idle() -> Status {
    DOMAIN.error(
        Code::DeadlineExceeded,
        "IDLE_STREAM",
        format!("no lease was renewed on this stream for {} s", IDLE_LIMIT.as_secs()),
    )
}
