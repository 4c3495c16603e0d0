//! Why a server could not serve, or had to stop.

use crate::discovery::announce::AnnounceError;

/// Why a server could not serve, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The instance id cannot be a header's value.
    #[error("instance id {0:?}: must be 1 to 128 visible ASCII characters")]
    InvalidInstanceId(String),
    /// The bytes given to [`Server::descriptors`](super::Server::descriptors) are not a `FileDescriptorSet`.
    #[error("the descriptors cannot be read")]
    Descriptors(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The instance cannot be in the registry, and therefore not in the mesh.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}
