//! Orders as load: how they are offered, who places them, and where their end is seen.

mod arrivals;
mod buyers;
pub(crate) mod closed;
pub(crate) mod open;
mod placed;

use std::{future::Future, io, time::Duration};

use meshwork_harness::shop_processes;
use tokio::time::timeout;

pub(crate) use buyers::{Buyer, Buyers, reserved_orders};
pub(crate) use closed::Closed;
pub(crate) use open::Open;
pub(crate) use placed::{Placed, PlacedOrder};

/// Why no load can be put on a mesh.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The shop does not run as processes.
    #[error(transparent)]
    Shop(#[from] shop_processes::Error),
    /// A process cannot be asked at its own address.
    #[error("{name} cannot be reached: {source}")]
    Reach {
        /// The process.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A call that has to succeed.
    #[error("{what} failed: {status}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        status: Box<tonic::Status>,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Slow {
        /// What was tried.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
}

impl Error {
    /// A call that failed.
    pub(crate) fn call(what: &'static str) -> impl Fn(tonic::Status) -> Self {
        move |status| Self::Call { what, status: Box::new(status) }
    }
}

/// What `work` comes to, if it does so in time.
pub(crate) async fn within<T>(what: &'static str, limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout(limit, work).await.map_err(|_| Error::Slow { what, limit })
}
