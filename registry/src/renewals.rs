//! The stream of renewals: one may carry the leases of many instances.
//!
//! A lease that its caller may not touch is answered as one that is unknown, because an error would end the stream and let the
//! other leases on it run out. The caller then registers again, and is told there why it may not.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use meshwork::{
    contract::meshwork::registry::v1::{KeepAliveRequest, KeepAliveResponse, LeaseState},
    instance::LEASE_TTL,
    rpc::Violations,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{request, status::DOMAIN, table::LeaseId};

/// A stream that renews nothing for this long: every lease that it could have kept has run out.
const IDLE_LIMIT: Duration = *LEASE_TTL.end();

/// The answers of one stream.
pub(crate) type Renewals = BoxStream<'static, Result<KeepAliveResponse, Status>>;

/// Renews by `renew`, one by one, and ends after the first request that is malformed. A request is read when the answer to the one
/// before has been taken: there is no queue.
pub(crate) fn renewals<S, F>(requests: S, renew: impl Fn(LeaseId) -> F + Send + Sync + 'static) -> Renewals
where
    S: Stream<Item = Result<KeepAliveRequest, Status>> + Send + Unpin + 'static,
    F: Future<Output = Result<LeaseState, Status>> + Send + 'static,
{
    let renew = Arc::new(renew);
    let responses = stream::unfold(Some(requests), move |requests| {
        let renew = renew.clone();
        async move {
            let mut requests = requests?;
            let response = match timeout(IDLE_LIMIT, requests.next()).await {
                Ok(request) => match request? {
                    Ok(request) => answer(&*renew, request).await,
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

async fn answer<F>(
    renew: &(impl Fn(LeaseId) -> F + Sync),
    request: KeepAliveRequest,
) -> Result<KeepAliveResponse, Status>
where
    F: Future<Output = Result<LeaseState, Status>>,
{
    let mut violations = Violations::default();
    let lease = request::lease_id(request.lease_id, &mut violations);
    violations.into_result(DOMAIN)?;
    let state = renew(lease.clone()).await?;
    Ok(KeepAliveResponse { lease_id: lease.into_string(), state: state.into() })
}

fn idle() -> Status {
    DOMAIN.error(
        Code::DeadlineExceeded,
        "IDLE_STREAM",
        format!("no lease was renewed on this stream for {} s", IDLE_LIMIT.as_secs()),
    )
}
