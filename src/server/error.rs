//! Why a server could not serve, or had to stop.

use crate::{discovery::announce::AnnounceError, instance::InvalidField};

/// Why a server could not serve, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of its [`Config`](super::Config) is invalid: no registry would accept the instance.
    #[error("the instance cannot serve")]
    InvalidConfig(#[from] InvalidField),
    /// The bytes given to [`Server::descriptors`](super::Server::descriptors) are not a `FileDescriptorSet`.
    #[error("the descriptors cannot be read")]
    Descriptors(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The instance cannot be in the registry, and therefore not in the mesh.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}

/// Whether this is, or was caused by, another process that has registered with the instance's id: the server has ended so that the
/// other one serves. A process that is started again at once with the same id would only end the other in turn.
pub fn is_fenced(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let announce = match error.downcast_ref() {
            Some(Error::Announce(announce)) => Some(announce),
            _ => error.downcast_ref(),
        };
        matches!(announce, Some(AnnounceError::Fenced { .. }))
    })
}
