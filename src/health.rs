//! Whether something is well that calls, or events, depend on: what a server's gRPC health is made of.
//!
//! docs/health.md says what each name of a server's health means.

use std::sync::Arc;

use tokio::sync::watch;

/// A condition, now and as it changes: well, or what is wrong in a few words. Clones see the same.
#[derive(Clone, Debug)]
pub struct Condition(watch::Receiver<Result<(), Arc<str>>>);

impl Default for Condition {
    /// Well, for good.
    fn default() -> Self {
        Conditioner::default().condition()
    }
}

impl Condition {
    /// What is wrong, if anything is.
    pub fn problem(&self) -> Option<Arc<str>> {
        self.0.borrow().clone().err()
    }

    /// Waits for a change since the last call. Cancel-safe. A condition that nobody watches over any more stays as it is.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Says whether something is well.
#[derive(Debug)]
pub(crate) struct Conditioner(watch::Sender<Result<(), Arc<str>>>);

impl Default for Conditioner {
    /// Well, until something else is said.
    fn default() -> Self {
        Self(watch::Sender::new(Ok(())))
    }
}

impl Conditioner {
    /// The condition.
    pub(crate) fn condition(&self) -> Condition {
        Condition(self.0.subscribe())
    }

    /// Says how it is. Returns whether it has got well, or ceased to be.
    pub(crate) fn set(&self, condition: Result<(), String>) -> bool {
        let condition = condition.map_err(Arc::from);
        let mut turned = false;
        self.0.send_if_modified(|now| {
            turned = now.is_ok() != condition.is_ok();
            std::mem::replace(now, condition.clone()) != condition
        });
        turned
    }
}
