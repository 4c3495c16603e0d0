//! Calls to a shop that breaks: repeated until they are answered, and every failure counted by its code.
//!
//! A failure that faults explain is no failure of the run. A wrong answer is, and so is a code that names no cause
//! (INTERNAL, UNKNOWN) or blames the caller, which has done nothing wrong.

use std::{collections::BTreeMap, future::Future, time::Duration};

use meshwork::{Mesh, channel::Channel};
use meshwork_harness::report::Failures;
use meshwork_shop::contract::shop::{
    customer::v1::customer_service_client::CustomerServiceClient, order::v1::order_service_client::OrderServiceClient,
    query::v1::query_service_client::QueryServiceClient,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};

/// The deadline of each attempt: longer than the shop itself waits for a database that restarts.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a call is repeated: longer than the longest fault together with the leases that run out after it.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// The first pause; then it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: thousands of orders that wait out a fault must not keep the shop from coming back.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The shop's clients, and how their calls went.
pub(super) struct Calls {
    pub(super) customer: CustomerServiceClient<Channel>,
    pub(super) order: OrderServiceClient<Channel>,
    pub(super) query: QueryServiceClient<Channel>,
    tally: Mutex<Tally>,
}

/// How calls went.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Attempts that failed as faults make them fail, by rpc and code.
    pub(super) failed: BTreeMap<String, u64>,
    /// What no fault explains.
    pub(super) wrong: Failures,
}

impl Calls {
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            customer: CustomerServiceClient::new(mesh.channel("customer")),
            order: OrderServiceClient::new(mesh.channel("order")),
            query: QueryServiceClient::new(mesh.channel("query")),
            tally: Mutex::default(),
        }
    }

    /// How calls went so far; counting begins anew.
    pub(super) fn take_tally(&self) -> Tally {
        std::mem::take(&mut self.tally())
    }

    /// Something was answered that cannot be true.
    pub(super) fn wrong(&self, what: impl Into<String>) {
        self.tally().wrong.add(what);
    }

    /// Calls once. `None`: it failed, and that was counted.
    pub(super) async fn attempt<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<T> {
        match call.await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                self.failed(rpc, &status);
                None
            }
        }
    }

    /// Calls until there is an answer that another attempt would not change; returns it with the time of its request.
    /// `None`: there was none in time, which is wrong.
    pub(super) async fn insist<T, F>(
        &self,
        rpc: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Option<(Instant, Result<T, Status>)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + ANSWER_LIMIT;
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = Instant::now();
            let status = match call().await {
                Ok(answer) => return Some((asked, Ok(answer.into_inner()))),
                // The state of what was asked about: the caller knows whether it can be.
                Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => {
                    return Some((asked, Err(status)));
                }
                Err(status) => status,
            };
            self.failed(rpc, &status);
            if Instant::now() >= end {
                self.wrong(format!("{rpc} was not answered in {} s", ANSWER_LIMIT.as_secs()));
                return None;
            }
            // A random share of it, so that calls that failed together do not come back together.
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn failed(&self, rpc: &'static str, status: &Status) {
        let mut tally = self.tally();
        if is_passing(status.code()) {
            *tally.failed.entry(format!("{rpc} {:?}", status.code())).or_default() += 1;
        } else {
            tally.wrong.add(format!("{rpc}: {:?}: {}", status.code(), status.message()));
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock()
    }
}

/// A request with a deadline.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// Whether an error is about the moment, not about the call.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    async fn calls() -> Calls {
        Calls::new(&Mesh::connect("127.0.0.1:1").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_repeated_until_it_is_answered_and_what_faults_explain_is_only_counted() {
        let calls = calls().await;
        let mut answers = vec![Ok(Response::new(7)), Err(Status::unavailable("")), Err(Status::deadline_exceeded(""))];
        let answer = calls.insist("Get", || ready(answers.pop().unwrap())).await;
        assert!(matches!(answer, Some((_, Ok(7)))));
        let tally = calls.take_tally();
        assert_eq!(
            tally.failed.into_iter().collect::<Vec<_>>(),
            [("Get DeadlineExceeded".to_owned(), 1), ("Get Unavailable".to_owned(), 1)]
        );
        assert!(tally.wrong.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_that_no_fault_explains_is_wrong_even_if_the_next_answer_is_good() {
        for code in [Code::Internal, Code::Unknown, Code::Cancelled, Code::DataLoss, Code::InvalidArgument] {
            let calls = calls().await;
            let mut answers = vec![Ok(Response::new(7)), Err(Status::new(code, "why"))];
            assert!(calls.insist("Get", || ready(answers.pop().unwrap())).await.is_some());
            assert!(!calls.take_tally().wrong.is_empty(), "{code:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_answered_is_wrong() {
        let calls = calls().await;
        let answer = calls.insist::<(), _>("Get", || ready(Err(Status::unavailable("")))).await;
        assert!(answer.is_none());
        assert!(!calls.take_tally().wrong.is_empty());
    }
}
