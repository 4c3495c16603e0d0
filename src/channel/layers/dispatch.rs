//! The lowest step: finds an endpoint that is ready, and makes one attempt there.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use crate::balance::{NoPick, Pick, Picked, Picker};
use crate::channel::{
    call::{Answer, Call, Step},
    error::{CallError, NotReady},
    link::Link,
    metrics,
    roster::Roster,
    service_config::Rules,
};

/// How long a call waits for a ready endpoint before it fails: long enough for a reconnect or a restart, short enough that a
/// person is told what is wrong.
const READY_LIMIT: Duration = Duration::from_secs(3);

/// Picks an endpoint for every attempt.
#[derive(Clone)]
pub(crate) struct Dispatch {
    service: Arc<str>,
    picker: Arc<Picker<Link>>,
    roster: Arc<Roster>,
    rules: Arc<Rules>,
}

impl Dispatch {
    pub(crate) fn new(service: Arc<str>, picker: Arc<Picker<Link>>, roster: Arc<Roster>, rules: Arc<Rules>) -> Self {
        Self { service, picker, roster, rules }
    }

    /// An endpoint beside the one that has the call, if one is ready.
    pub(crate) fn other(&self, call: &Call) -> Option<Pick<Link>> {
        self.picker.pick_other(&call.asked()?.gate)
    }

    async fn pick(&self, call: &Call) -> Result<Pick<Link>, CallError> {
        let closed = || CallError::Closed { service: self.service.to_string() };
        // Who has had the call already is the last to get it again.
        let asked = call.asked();
        let later = match self.picker.pick(asked.as_ref().map(|asked| &*asked.gate)) {
            Ok(Picked::Now(pick)) => return Ok(pick),
            Ok(Picked::Later(later)) => later,
            Err(NoPick::Closed) => return Err(closed()),
            Err(NoPick::QueueFull) => return Err(CallError::QueueFull { service: self.service.to_string() }),
        };
        let begun = Instant::now();
        let picked = match call.wait_for_ready {
            Some(_) => Ok(later.await),
            None => timeout(READY_LIMIT, later).await,
        };
        metrics::waited(&self.service, begun.elapsed());
        picked.map_err(|_| self.not_ready())?.map_err(|_| closed())
    }

    fn not_ready(&self) -> CallError {
        CallError::NotReady(Box::new(NotReady {
            service: self.service.to_string(),
            waited: READY_LIMIT,
            endpoints: self.roster.describe(),
            discovery: self.roster.discovery(),
        }))
    }
}

impl Step for Dispatch {
    async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let Pick { link, gate, call: pending } = self.pick(call).await?;
        // An endpoint may have come since the attempt was granted, and its terms before it.
        if call.further_attempts() > 0 && self.rules.of(&call.path).method.is_none() {
            pending.unsent();
            return Err(CallError::Withdrawn { service: self.service.to_string() });
        }
        link.send(call, pending, &gate).await
    }
}
