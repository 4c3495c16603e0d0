//! A client's statistics of its channel's endpoints.

use std::time::{Duration, SystemTime};

/// One endpoint as this client sees it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// The instance's id; empty at a fixed address, such as a registry's.
    pub instance_id: String,
    /// Where it is, host:port; the first of several fixed addresses.
    pub address: String,
    /// Its version; empty: unknown.
    pub version: String,
    /// Its zone; empty: unknown.
    pub zone: String,
    /// Its share of the load relative to the others; 0: the default, which is 100.
    pub weight: u32,
    /// Its state.
    pub state: EndpointState,
    /// How many calls its server allows to be under way on the connection. `None`: there is no connection, or no limit.
    pub stream_limit: Option<u32>,
    /// When the certificate expires that its server has shown. `None`: there is no connection, or it is in plain text.
    pub certificate_expires: Option<SystemTime>,
    /// What its calls were like.
    pub calls: CallStats,
}

/// How an endpoint stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// There is no connection yet.
    Connecting,
    /// The last connection, or the attempt to make one, failed; another attempt follows.
    TransientFailure {
        /// What went wrong.
        why: String,
    },
    /// It takes calls.
    Ready,
    /// Its calls failed: it gets none, unless too many others are ejected as well.
    Ejected {
        /// For how long.
        time_left: Duration,
    },
    /// It was ejected, and is being asked again: one call decides.
    Probation,
}

impl EndpointState {
    /// The names of all states.
    pub(crate) const NAMES: [&str; 5] = ["connecting", "transient_failure", "ready", "ejected", "probation"];

    /// In one word, for tables and metrics.
    pub fn name(&self) -> &'static str {
        let [connecting, transient_failure, ready, ejected, probation] = Self::NAMES;
        match self {
            Self::Connecting => connecting,
            Self::TransientFailure { .. } => transient_failure,
            Self::Ready => ready,
            Self::Ejected { .. } => ejected,
            Self::Probation => probation,
        }
    }
}

/// What a client has seen of an endpoint's calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallStats {
    /// What the next call would cost there, as it is compared with others: seconds to response headers, times the calls
    /// under way, times a penalty for failures.
    pub load: f64,
    /// The average time to response headers, of the last seconds above all. `None`: none have come.
    pub latency: Option<Duration>,
    /// Calls that have not ended.
    pub pending: u32,
    /// Calls that were sent there, retries included.
    pub calls: u64,
    /// Those of them that failed, and that the endpoint is to blame for.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
}
