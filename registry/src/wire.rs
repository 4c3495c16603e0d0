//! `WatchResponse` with its instances and policies encoded already.
//!
//! An embedded message and a `bytes` field look the same on the wire, so these mirror the contract's messages with
//! [`Bytes`] where an instance or a policy would be. A state of either is encoded once, when it comes to be
//! ([`Record`](crate::table::Record)); every response to every watcher is put together from these shared bytes.

use bytes::Bytes;
use meshwork::contract::meshwork::registry::v1::{InstanceRef, Progress};
use prost::Message;

use crate::{
    backend::{Event as BackendEvent, Update},
    table::{Delta, Record, ServiceSnapshot},
};

/// `meshwork.registry.v1.WatchResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(string, tag = "1")]
    epoch: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(oneof = "Event", tags = "3, 4, 5")]
    event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Event {
    #[prost(message, tag = "3")]
    Snapshot(Snapshot),
    #[prost(message, tag = "4")]
    Change(Change),
    #[prost(message, tag = "5")]
    Progress(Progress),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Snapshot {
    #[prost(message, repeated, tag = "1")]
    services: Vec<ServiceInstances>,
    #[prost(bool, tag = "2")]
    provisional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceInstances {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(bool, tag = "2")]
    known: bool,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    instances: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    policy: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    authorization: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    updated: Vec<Bytes>,
    #[prost(message, repeated, tag = "2")]
    removed: Vec<InstanceRef>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    policies: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    authorizations: Vec<Bytes>,
}

impl WatchResponse {
    /// The response with an update in `epoch`.
    pub(crate) fn new(epoch: &str, update: Update) -> Self {
        let event = match update.event {
            BackendEvent::Snapshot { services, provisional } => {
                Event::Snapshot(Snapshot { services: services.iter().map(service).collect(), provisional })
            }
            BackendEvent::Change(delta) => Event::Change(change(delta)),
            BackendEvent::Progress => Event::Progress(Progress {}),
        };
        Self { epoch: epoch.to_owned(), revision: update.revision, event: Some(event) }
    }
}

fn service(state: &ServiceSnapshot) -> ServiceInstances {
    ServiceInstances {
        service: state.service.to_string(),
        known: state.known,
        instances: encoded(&state.instances),
        policy: state.policy.as_ref().map(|policy| policy.encoded().clone()),
        authorization: state.authorization.as_ref().map(|policy| policy.encoded().clone()),
    }
}

fn change(delta: Delta) -> Change {
    let reference = |(service, id): (std::sync::Arc<str>, std::sync::Arc<str>)| InstanceRef {
        service: service.to_string(),
        instance_id: id.to_string(),
    };
    Change {
        updated: encoded(&delta.updated),
        removed: delta.removed.into_iter().map(reference).collect(),
        policies: encoded(&delta.policies),
        authorizations: encoded(&delta.authorizations),
    }
}

fn encoded<M: Message>(records: &[Record<M>]) -> Vec<Bytes> {
    records.iter().map(|record| record.encoded().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork::contract::meshwork::registry::v1 as contract;

    fn instance() -> contract::Instance {
        contract::Instance { service: "order".into(), instance_id: "a".into(), weight: 7, ..Default::default() }
    }

    fn policy() -> contract::Policy {
        let timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
        contract::Policy { service: "order".into(), timeout, ..Default::default() }
    }

    fn rules() -> contract::AuthorizationPolicy {
        let rule = contract::AuthorizationRule { callers: vec!["*".into()], methods: vec!["a.B/*".into()] };
        contract::AuthorizationPolicy { service: "order".into(), allow: vec![rule], ..Default::default() }
    }

    fn as_clients_see_it(event: BackendEvent) -> contract::WatchResponse {
        let bytes = WatchResponse::new("epoch", Update { revision: 9, event }).encode_to_vec();
        contract::WatchResponse::decode(bytes.as_slice()).expect("the same on the wire")
    }

    fn response(event: contract::watch_response::Event) -> contract::WatchResponse {
        contract::WatchResponse { epoch: "epoch".into(), revision: 9, event: Some(event) }
    }

    #[test]
    fn a_snapshot_is_the_contract_s_on_the_wire() {
        let instances = vec![Record::new(instance()), Record::new(contract::Instance::default())];
        let services = vec![ServiceSnapshot {
            service: "order".into(),
            known: true,
            instances,
            policy: Some(Record::new(policy())),
            authorization: Some(Record::new(rules())),
        }];
        let sent = BackendEvent::Snapshot { services, provisional: true };
        let instances = vec![instance(), contract::Instance::default()];
        let service = contract::ServiceInstances {
            service: "order".into(),
            known: true,
            instances,
            policy: Some(policy()),
            authorization: Some(rules()),
        };
        let snapshot = contract::Snapshot { services: vec![service], provisional: true };
        assert_eq!(as_clients_see_it(sent), response(contract::watch_response::Event::Snapshot(snapshot)));
    }

    #[test]
    fn a_change_and_a_mark_are_the_contract_s_on_the_wire() {
        let removed = vec![("order".into(), "b".into())];
        let policies = vec![Record::new(policy())];
        let sent = BackendEvent::Change(Delta {
            updated: vec![Record::new(instance())],
            removed,
            policies,
            authorizations: vec![Record::new(rules())],
        });
        let removed = vec![contract::InstanceRef { service: "order".into(), instance_id: "b".into() }];
        let change = contract::Change {
            updated: vec![instance()],
            removed,
            policies: vec![policy()],
            authorizations: vec![rules()],
        };
        assert_eq!(as_clients_see_it(sent), response(contract::watch_response::Event::Change(change)));
        let progress = response(contract::watch_response::Event::Progress(contract::Progress {}));
        assert_eq!(as_clients_see_it(BackendEvent::Progress), progress);
    }

    #[test]
    fn all_watchers_are_sent_the_same_bytes() {
        let (instance, policy, rules) = (Record::new(instance()), Record::new(policy()), Record::new(rules()));
        let addresses = || {
            let (updated, policies) = (vec![instance.clone()], vec![policy.clone()]);
            let event = BackendEvent::Change(Delta {
                updated,
                policies,
                authorizations: vec![rules.clone()],
                ..Delta::default()
            });
            let response = WatchResponse::new("epoch", Update { revision: 9, event });
            let Some(Event::Change(change)) = response.event else { panic!("a change") };
            [change.updated[0].as_ptr(), change.policies[0].as_ptr(), change.authorizations[0].as_ptr()]
        };
        assert_eq!(addresses(), addresses(), "encoded once");
    }
}
