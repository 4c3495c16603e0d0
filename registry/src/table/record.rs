//! A state of an instance or a policy as watchers get it.

use std::sync::Arc;

use bytes::Bytes;
use meshwork::contract::meshwork::registry::v1::Instance;
use prost::Message;

/// One state of an instance or a policy, encoded once and shared by every response that carries it.
#[derive(Clone, Debug)]
pub struct Record<M = Instance> {
    message: Arc<M>,
    encoded: Bytes,
}

impl<M: Message> Record<M> {
    /// Encodes `message`.
    pub fn new(message: M) -> Self {
        Self { encoded: message.encode_to_vec().into(), message: Arc::new(message) }
    }

    /// The instance or policy in this state.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The same as a protobuf message.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }
}

impl Record {
    /// The instance in this state.
    pub fn instance(&self) -> &Instance {
        &self.message
    }
}
