//! The context in which channels are made.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::locality::Locality;
use crate::{endpoint::connection::connector::Connector, identity::Security};

/// What channels are made in: the mesh's tasks, its end, its locality, its way to connect, and its identity.
#[derive(Clone, Debug)]
pub(crate) struct ChannelContext {
    pub(crate) locality: Locality,
    pub(crate) connector: Connector,
    pub(crate) security: Security,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}
