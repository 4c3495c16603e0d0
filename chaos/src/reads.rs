//! Reads of a quiet mesh, of which none should fail. One that does is counted, and tried again, so that the rest can be
//! checked.

use std::{future::Future, time::Duration};

use meshwork_harness::report::Failures;
use meshwork_shop::{Amount, contract::shop::r#type::v1::Money};
use parking_lot::Mutex;
use tokio::time::sleep;
use tonic::{Code, Response, Status};

/// Attempts of a read.
const ATTEMPTS: u32 = 5;
/// Between two attempts: all of them together outlast the leases of processes that were killed last.
const PAUSE: Duration = Duration::from_secs(3);

/// How reads went.
#[derive(Default)]
pub(super) struct Reads {
    failed: Mutex<Failures>,
}

impl Reads {
    /// Reads something; `None` if it is not there.
    pub(super) async fn read<T, F>(&self, rpc: &'static str, mut call: impl FnMut() -> F) -> Result<Option<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempt = 1;
        loop {
            match call().await {
                Ok(answer) => return Ok(Some(answer.into_inner())),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => {
                    let what = format!("{rpc}: {:?}: {}", status.code(), status.message());
                    self.failed.lock().add(what);
                    if attempt == ATTEMPTS {
                        return Err(status);
                    }
                }
            }
            attempt += 1;
            sleep(PAUSE).await;
        }
    }

    /// What failed.
    pub(super) fn failed(self) -> Failures {
        self.failed.into_inner()
    }
}

/// An amount as a code and cents.
pub(super) fn money(money: Option<&Money>) -> Result<(String, i64), Status> {
    let amount = money.map(Amount::try_from).and_then(Result::ok);
    let amount = amount.ok_or_else(|| Status::internal("an answer without an amount"))?;
    Ok((amount.currency().code().to_owned(), amount.minor()))
}
