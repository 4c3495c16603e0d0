//! What the calls of a connection have in common.

use tokio_util::sync::CancellationToken;

use crate::identity::PeerIdentity;

/// What the calls of a connection have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) identity: PeerIdentity,
    /// Ends the streams of a connection that ends with its certificate.
    pub(super) ending: Option<CancellationToken>,
}
