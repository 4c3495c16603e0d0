//! A server's health as it answers grpc.health.v1, and as it reports it to the registry.
//!
//! | name | SERVING while |
//! |---|---|
//! | empty, and each gRPC service | the server accepts calls, no registry refuses it, and all dependencies are healthy: see [`Server::depends_on`] |
//! | what [`Server::reports`] adds, such as `events/order` | that condition is healthy |
//!
//! A condition that is only reported does not affect calls: a service whose events are late answers as before. docs/health.md is for
//! operators.
//!
//! [`Server::depends_on`]: super::Server::depends_on
//! [`Server::reports`]: super::Server::reports

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::select_all;
use tokio::time::sleep;

use super::{Config, health_service::Statuses};
use crate::{
    contract::{grpc::health::v1::health_check_response::ServingStatus, meshwork::registry::v1::InstanceStatus},
    discovery::announce::Voice,
    health::{Condition, Conditioner},
};

/// How often the gauges are set again: exporters drop one that was not set for a while, as of something that is gone.
const REPEAT: Duration = Duration::from_secs(15);

/// The conditions of a server.
#[derive(Default)]
pub(super) struct Conditions {
    /// What calls depend on.
    pub(super) essential: Vec<Condition>,
    /// Conditions that are only reported, each under its own name.
    pub(super) reported: Vec<(String, Condition)>,
    /// The essential ones as one, for as long as the server does not leave.
    pub(super) together: Conditioner,
}

/// The health of a server.
pub(super) struct Health {
    statuses: Statuses,
    /// The empty name, and those of all services.
    names: Vec<String>,
    conditions: Conditions,
    /// The last report.
    well: bool,
    service: String,
    instance_id: String,
}

impl Health {
    /// The health of a server with these services, said by `statuses`.
    pub(super) fn new(
        statuses: Statuses,
        services: impl Iterator<Item = String>,
        conditions: Conditions,
        config: &Config,
    ) -> Self {
        let names = services.chain([String::new()]).collect();
        let (service, instance_id) = (config.service.clone(), config.instance_id.clone());
        Self { statuses, names, conditions, well: false, service, instance_id }
    }

    /// The server accepts calls. Returns what the registry is to know of it.
    pub(super) fn begin(&mut self) -> InstanceStatus {
        self.well = self.is_well();
        self.tell_together();
        self.tell_reported();
        self.tell_all(self.well);
        status(self.well)
    }

    /// Calls depend on these as well.
    pub(super) fn depends_on(&mut self, conditions: impl Iterator<Item = Condition>) {
        self.conditions.essential.extend(conditions);
    }

    /// Tells of every change, also to the mesh, until it is dropped.
    pub(super) async fn follow(&mut self, voice: Option<Voice>) -> Infallible {
        loop {
            self.tell_reported();
            let well = self.is_well();
            if well != self.well {
                self.well = well;
                self.tell_together();
                if let Some(voice) = &voice {
                    voice.say(status(well));
                }
            }
            self.tell_all(well);
            // Cancel-safe: what has changed is read anew.
            tokio::select! {
                () = self.changed() => {}
                () = sleep(REPEAT) => {}
            }
        }
    }

    /// The server leaves.
    pub(super) fn end(&self) {
        self.tell_all(false);
    }

    fn is_well(&self) -> bool {
        self.problem().is_none()
    }

    fn problem(&self) -> Option<Arc<str>> {
        self.conditions.essential.iter().find_map(Condition::problem)
    }

    async fn changed(&mut self) {
        let Conditions { essential, reported, .. } = &mut self.conditions;
        let all = essential.iter_mut().chain(reported.iter_mut().map(|(_, condition)| condition));
        let changes: Vec<_> = all.map(|condition| Box::pin(condition.changed())).collect();
        if changes.is_empty() {
            return std::future::pending().await;
        }
        select_all(changes).await;
    }

    fn tell_together(&self) {
        self.conditions.together.set(self.problem().map_or(Ok(()), |problem| Err(problem.to_string())));
    }

    fn tell_reported(&self) {
        for (name, condition) in &self.conditions.reported {
            self.tell(name, condition.problem().is_none());
        }
    }

    fn tell_all(&self, well: bool) {
        for name in &self.names {
            self.tell(name, well);
        }
    }

    fn tell(&self, name: &str, well: bool) {
        let status = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.statuses.set(name, status);
        let labels = [
            metrics::Label::new("service", self.service.clone()),
            metrics::Label::new("instance", self.instance_id.clone()),
            metrics::Label::new("name", name.to_owned()),
        ];
        metrics::gauge!("meshwork_health_serving", labels.iter()).set(u8::from(well));
    }
}

/// What the registry is to know of a server.
fn status(well: bool) -> InstanceStatus {
    if well { InstanceStatus::Serving } else { InstanceStatus::NotServing }
}
