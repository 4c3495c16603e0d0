//! The shop's clients, and calls that are repeated while instances come and go.
//!
//! The mesh repeats by itself what it knows to be safe. The demo may repeat more: it gives every command a `request_id`
//! (AIP-155), so that a command whose answer was lost is not done twice.

use std::{future::Future, sync::Once, time::Duration};

use meshwork::{Mesh, channel::Channel};
use meshwork_process::to_stderr;
use meshwork_shop::contract::shop::{
    customer::v1::customer_service_client::CustomerServiceClient, order::v1::order_service_client::OrderServiceClient,
    query::v1::query_service_client::QueryServiceClient,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};

/// The deadline of each attempt: far more than any call of the shop takes.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a call is repeated: an instance that was killed is back, or no longer listed, after a lease of 10 s.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a call is repeated before the user is told so.
const SILENCE: Duration = Duration::from_secs(1);
/// The first pause; then it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

use crate::{direct::said, table::printable};

/// A client for each service of the shop; clones are cheap.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) customer: CustomerServiceClient<Channel>,
    pub(super) order: OrderServiceClient<Channel>,
    pub(super) query: QueryServiceClient<Channel>,
}

impl Clients {
    /// Clients over the channels of a mesh.
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            customer: CustomerServiceClient::new(mesh.channel("customer")),
            order: OrderServiceClient::new(mesh.channel("order")),
            query: QueryServiceClient::new(mesh.channel("query")),
        }
    }
}

/// A request with a deadline.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// Calls until there is an answer that another attempt would not change, or time is up.
pub(super) async fn retry<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    static SAID: Once = Once::new();
    let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_passing(status.code()) && begin.elapsed() < LIMIT => {
                if begin.elapsed() > SILENCE {
                    SAID.call_once(|| to_stderr(format_args!("waiting for the mesh: {}", printable(&said(&status)))));
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(status) => return Err(status),
        }
    }
}

/// Whether an error is about the moment, not about the call.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_passing_error_is_repeated_and_a_lasting_one_is_not() {
        let mut answers = vec![Ok(Response::new(7)), Err(Status::unavailable("killed")), Err(Status::aborted("again"))];
        let answer = retry(|| std::future::ready(answers.pop().expect("not asked again after an answer"))).await;
        assert_eq!(answer.expect("the third attempt"), 7);

        let mut calls = 0;
        let answer: Result<(), Status> = retry(|| {
            calls += 1;
            std::future::ready(Err(Status::not_found("never was")))
        })
        .await;
        assert_eq!((answer.expect_err("it is not there").code(), calls), (Code::NotFound, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_stays_away_is_given_up() {
        let begin = Instant::now();
        let answer: Result<(), Status> = retry(|| std::future::ready(Err(Status::unavailable("gone")))).await;
        assert_eq!(answer.expect_err("the mesh did not come back").code(), Code::Unavailable);
        assert!(begin.elapsed() < LIMIT + 2 * LONGEST_PAUSE, "{:?}", begin.elapsed());
    }
}
