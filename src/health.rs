//! Conditions that calls or events depend on: a server's gRPC health is made of them.
//!
//! docs/health.md explains each health name of a server.

use std::sync::Arc;

use tokio::sync::watch;

/// The problem of a condition whose [`Conditioner`] was dropped: its state is unknown.
const UNWATCHED: &str = "a defect: the task that monitors it has ended";

/// A condition that can be watched: healthy, or a few words on what is wrong. Clones share it. Default: always healthy.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    told: Option<watch::Receiver<Result<(), Arc<str>>>>,
    /// Whether [`Condition::changed`] has seen that its [`Conditioner`] was dropped.
    ended: bool,
}

impl Condition {
    /// What is wrong, if anything is.
    pub fn problem(&self) -> Option<Arc<str>> {
        let told = self.told.as_ref()?;
        let problem = told.borrow().clone().err();
        problem.or_else(|| told.has_changed().is_err().then(|| UNWATCHED.into()))
    }

    /// Waits for a change since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        match &mut self.told {
            Some(told) if !self.ended => self.ended = told.changed().await.is_err(),
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Waits for a problem and returns it. Cancel-safe.
    pub async fn until_problem(&mut self) -> Arc<str> {
        loop {
            if let Some(problem) = self.problem() {
                return problem;
            }
            self.changed().await;
        }
    }
}

/// Reports whether something is healthy. Once it is dropped, the condition is unhealthy.
#[derive(Debug)]
pub struct Conditioner(watch::Sender<Result<(), Arc<str>>>);

impl Default for Conditioner {
    /// Healthy, until a problem is reported.
    fn default() -> Self {
        Self(watch::Sender::new(Ok(())))
    }
}

impl Conditioner {
    /// The condition.
    pub fn condition(&self) -> Condition {
        Condition { told: Some(self.0.subscribe()), ended: false }
    }

    /// Sets the condition. Returns whether it has become healthy or unhealthy.
    pub fn set(&self, condition: Result<(), String>) -> bool {
        let condition = condition.map_err(Arc::from);
        let mut turned = false;
        self.0.send_if_modified(|now| {
            turned = now.is_ok() != condition.is_ok();
            std::mem::replace(now, condition.clone()) != condition
        });
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_watches_over_any_more_is_not_well() {
        let conditioner = Conditioner::default();
        let mut condition = conditioner.condition();
        assert_eq!(condition.problem(), None);
        drop(conditioner);
        condition.changed().await;
        assert_eq!(&*condition.until_problem().await, UNWATCHED);
        assert!(futures_util::poll!(Box::pin(condition.changed())).is_pending(), "it is notified once");
        assert_eq!(Condition::default().problem(), None);
    }
}
