//! The context in which channels are made.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::locality::Locality;
use crate::endpoint::connection::connector::Connector;

/// What channels are made in: the mesh's tasks, its end, its locality, and its way to connect.
#[derive(Clone, Debug)]
pub(crate) struct ChannelContext {
    pub(crate) locality: Locality,
    pub(crate) connector: Connector,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}
