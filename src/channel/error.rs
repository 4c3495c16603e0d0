//! Why a call failed before a server's own status could come, and the status that its caller gets.

use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use tonic::{Code, Status, metadata::MetadataMap};

use super::classify::{Failure, Verdict};
use crate::{
    endpoint::{Endpoint, peer::Peer},
    headers::{INNER_CALL, INSTANCE},
    service_name::InvalidServiceName,
};

/// A call that got no status from a server.
#[derive(Debug)]
pub(crate) enum CallError {
    /// It failed on its way to or from an endpoint.
    Endpoint(EndpointError),
    /// No endpoint was ready in time.
    NotReady(Box<NotReady>),
    /// What was called cannot be the name of a service.
    InvalidService {
        /// What was called.
        service: String,
        /// What is wrong with it.
        problem: InvalidServiceName,
    },
    /// A hedge found no other endpoint ready.
    NoOther,
    /// As many calls wait for an endpoint as may.
    QueueFull {
        /// The service that was called.
        service: String,
    },
    /// It has failed, and may not be sent again any more.
    Withdrawn {
        /// The service that was called.
        service: String,
    },
    /// The mesh was closed.
    Closed {
        /// The service that was called.
        service: String,
    },
    /// The deadline passed.
    DeadlineExceeded {
        /// The service that was called.
        service: String,
        /// The endpoint that had not answered yet; `None` if the call still waited for one.
        peer: Option<Peer>,
    },
    /// The caller's own messages could not be sent.
    Request(Box<Status>),
}

/// A call that failed at one endpoint.
#[derive(Debug)]
pub(crate) struct EndpointError {
    pub(crate) endpoint: Arc<Endpoint>,
    /// At which of its addresses.
    pub(crate) peer: Peer,
    pub(crate) failure: Failure,
    /// `None`: the server gave no more detail.
    pub(crate) source: Option<hyper::Error>,
}

impl EndpointError {
    pub(crate) fn into_status(self) -> Status {
        let Self { peer, failure, source, .. } = self;
        let mut message = format!("{failure} at {peer}");
        if let Some(source) = source {
            message = format!("{message}: {source}");
            if let Some(cause) = source.source() {
                message = format!("{message}: {cause}");
            }
        }
        let code = Verdict::of_failure(failure).code.unwrap_or(Code::Unknown);
        private(at_peer(Status::new(code, message), &peer))
    }
}

/// The status for the caller of a service without a ready endpoint.
#[derive(Debug)]
pub(crate) struct NotReady {
    pub(crate) service: String,
    pub(crate) waited: Duration,
    /// Every endpoint, with its last connection error.
    pub(crate) endpoints: Vec<String>,
    /// What there is to say about the registry.
    pub(crate) discovery: Option<String>,
}

/// As many endpoints as an error message names.
const MAX_NAMED: usize = 4;

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no endpoint of {} was ready within {:.1} s", self.service, self.waited.as_secs_f64())?;
        match self.endpoints.len() {
            0 => f.write_str("; none is known")?,
            known => {
                let named = &self.endpoints[..known.min(MAX_NAMED)];
                write!(f, "; {known} known: {}", named.join("; "))?;
                if known > MAX_NAMED {
                    f.write_str("; ...")?;
                }
            }
        }
        self.discovery.iter().try_for_each(|discovery| write!(f, "; {discovery}"))
    }
}

/// The status of a call whose deadline has passed.
pub(crate) fn deadline_exceeded(service: &str, peer: Option<&Peer>) -> Status {
    match peer {
        Some(peer) => {
            let message = format!("no answer from {peer} before the deadline");
            private(at_peer(Status::deadline_exceeded(message), peer))
        }
        None => Status::deadline_exceeded(format!("no endpoint of {service} was ready before the deadline")),
    }
}

/// Says in a status which endpoint it is about.
pub(crate) fn at_peer(status: Status, peer: &Peer) -> Status {
    match peer.instance() {
        Some(instance) => with_header(status, INSTANCE, instance.clone()),
        None => status,
    }
}

/// Marks a status whose message names addresses: a handler that passes it on must not tell them to its own caller.
pub(crate) fn private(status: Status) -> Status {
    with_header(status, INNER_CALL, HeaderValue::from_static("failed"))
}

fn with_header(mut status: Status, name: HeaderName, value: HeaderValue) -> Status {
    let mut headers = std::mem::take(status.metadata_mut()).into_headers();
    headers.insert(name, value);
    *status.metadata_mut() = MetadataMap::from_headers(headers);
    status
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Endpoint(error) => error.into_status(),
            CallError::NoOther => Self::unavailable("no other endpoint is ready"),
            CallError::InvalidService { service, problem } => {
                Self::invalid_argument(format!("service name {service:?}: {problem}"))
            }
            CallError::NotReady(not_ready) => private(Self::unavailable(not_ready.to_string())),
            CallError::QueueFull { service } => {
                Self::unavailable(format!("too many calls wait for an endpoint of {service}"))
            }
            CallError::Withdrawn { service } => Self::unavailable(format!(
                "the call has failed and is not sent again: not every endpoint of {service} declares it idempotent any more"
            )),
            CallError::Closed { service } => Self::unavailable(format!("the mesh is closed, {service} was not called")),
            CallError::DeadlineExceeded { service, peer } => deadline_exceeded(&service, peer.as_ref()),
            CallError::Request(status) => *status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_found_no_endpoint_names_service_endpoints_errors_and_time() {
        let not_ready = NotReady {
            service: "order".into(),
            waited: Duration::from_secs(3),
            endpoints: vec!["a@10.0.0.1:1 (connection refused)".into()],
            discovery: Some("the registry does not answer: connection refused".into()),
        };
        assert_eq!(
            not_ready.to_string(),
            "no endpoint of order was ready within 3.0 s; 1 known: a@10.0.0.1:1 (connection refused); the registry does \
             not answer: connection refused"
        );
    }
}
