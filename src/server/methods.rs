//! The methods that a server's descriptors declare: their names, which of them stream, and which may be sent again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, MethodOptions, method_options};

use super::metrics::duration;
use crate::{
    contract::meshwork::registry::v1::{IdempotencyLevel, IdempotentMethod},
    rpc::CallDuration,
};

/// How a method's messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStreaming,
    /// Many requests. Also of a method that no descriptor declares: least is assumed about it.
    ClientStreaming,
}

#[derive(Debug)]
struct Declared {
    flow: Flow,
    duration: Arc<CallDuration>,
}

/// What is known of the methods that a server serves.
#[derive(Debug, Default)]
pub(super) struct Methods {
    /// By request path, as in `/shop.order.v1.OrderService/GetOrder`.
    declared: HashMap<Arc<str>, Declared>,
    /// In the descriptors' order.
    idempotent: Vec<IdempotentMethod>,
}

impl Methods {
    /// Reads the methods of `services` (full names) from encoded descriptor sets.
    pub(super) fn read(descriptors: &[&[u8]], services: &BTreeSet<String>) -> Result<Self, prost::DecodeError> {
        let mut methods = Self::default();
        for encoded in descriptors {
            for file in FileDescriptorSet::decode(*encoded)?.file {
                for service in &file.service {
                    let name = full_name(file.package(), service.name());
                    if services.contains(&name) {
                        service.method.iter().for_each(|method| methods.add(&name, method));
                    }
                }
            }
        }
        Ok(methods)
    }

    /// Those of `services` that no descriptor declares.
    pub(super) fn undeclared<'a>(&self, services: &'a BTreeSet<String>) -> Vec<&'a str> {
        let declared = |path: &str, service: &str| path[1..].strip_prefix(service).is_some_and(|m| m.starts_with('/'));
        let undeclared = |service: &&str| !self.declared.keys().any(|path| declared(path, service));
        services.iter().map(String::as_str).filter(undeclared).collect()
    }

    /// How the method at that path streams.
    pub(super) fn flow(&self, path: &str) -> Flow {
        self.declared.get(path).map_or(Flow::ClientStreaming, |method| method.flow)
    }

    /// What the calls of the method at that path are recorded in, if a descriptor declares it, and as unary.
    pub(super) fn unary(&self, path: &str) -> Option<&Arc<CallDuration>> {
        self.declared.get(path).filter(|method| method.flow == Flow::Unary).map(|method| &method.duration)
    }

    /// The full names of all methods, as in `shop.order.v1.OrderService/GetOrder`, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.declared.keys().map(|path| path[1..].to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The methods that a client may send again.
    pub(super) fn idempotent(&self) -> Vec<IdempotentMethod> {
        self.idempotent.clone()
    }

    fn add(&mut self, service: &str, method: &MethodDescriptorProto) {
        let name = format!("{service}/{}", method.name());
        let (level, flow) = (level(method), flow(method));
        let path: Arc<str> = format!("/{name}").into();
        let duration = Arc::new(duration(&path));
        let known = self.declared.insert(path, Declared { flow, duration });
        if known.is_none() && level != IdempotencyLevel::Unspecified {
            let unary = flow == Flow::Unary;
            self.idempotent.push(IdempotentMethod { method: name, idempotency_level: level.into(), unary });
        }
    }
}

fn full_name(package: &str, service: &str) -> String {
    if package.is_empty() { service.to_owned() } else { format!("{package}.{service}") }
}

fn flow(method: &MethodDescriptorProto) -> Flow {
    match (method.client_streaming(), method.server_streaming()) {
        (true, _) => Flow::ClientStreaming,
        (false, true) => Flow::ServerStreaming,
        (false, false) => Flow::Unary,
    }
}

fn level(method: &MethodDescriptorProto) -> IdempotencyLevel {
    use method_options::IdempotencyLevel as Declared;
    match method.options.as_ref().map(MethodOptions::idempotency_level) {
        None | Some(Declared::IdempotencyUnknown) => IdempotencyLevel::Unspecified,
        Some(Declared::NoSideEffects) => IdempotencyLevel::NoSideEffects,
        Some(Declared::Idempotent) => IdempotencyLevel::Idempotent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::DESCRIPTORS;

    const REGISTRY: &str = "meshwork.registry.v1.RegistryService";

    fn registry() -> Methods {
        Methods::read(&[DESCRIPTORS, DESCRIPTORS], &BTreeSet::from([REGISTRY.to_owned()])).expect("our descriptors")
    }

    #[test]
    fn only_what_is_served_and_declared_idempotent_may_be_sent_again() {
        let methods = registry().idempotent();
        let level = |name: &str| {
            let full = format!("{REGISTRY}/{name}");
            methods
                .iter()
                .filter(|method| method.method == full)
                .map(|method| (method.idempotency_level(), method.unary))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            level("Register"),
            [(IdempotencyLevel::Idempotent, true)],
            "and once, though its descriptors came twice"
        );
        assert_eq!(level("ListInstances"), [(IdempotencyLevel::NoSideEffects, true)]);
        assert_eq!(level("Watch"), [(IdempotencyLevel::NoSideEffects, false)]);
        assert!(methods.iter().all(|method| method.method.starts_with(REGISTRY)));
        assert!(Methods::read(&[DESCRIPTORS], &BTreeSet::new()).expect("our descriptors").idempotent().is_empty());
    }

    #[test]
    fn a_service_that_no_descriptor_declares_is_known_as_such() {
        let services = [REGISTRY, "meshwork.registry.v1.Registry", "test.Echo"].map(str::to_owned).into();
        assert_eq!(registry().undeclared(&services), ["meshwork.registry.v1.Registry", "test.Echo"]);
    }

    #[test]
    fn flows_are_read_and_an_undeclared_method_may_stream() {
        let flow = |method: &str| registry().flow(&format!("/{REGISTRY}/{method}"));
        assert_eq!(flow("Register"), Flow::Unary);
        assert_eq!(flow("Watch"), Flow::ServerStreaming);
        assert_eq!(flow("KeepAlive"), Flow::ClientStreaming);
        assert_eq!(flow("Else"), Flow::ClientStreaming);
    }
}
