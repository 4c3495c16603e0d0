//! Rules that can match nothing: they name what no instance of the service serves, and are refused when they are set.
//!
//! What is served is what instances have told, each of them of its own version. So what one of them serves is served, and what
//! none has told is not known, and not checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use meshwork::{
    contract::{
        DESCRIPTORS,
        meshwork::registry::v1::{AuthorizationPolicy, AuthorizationRule},
    },
    rpc::Violations,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::json::shortened;

/// gRPC services that an instance may serve without announcing them.
const OWN: &str = "meshwork.";

/// The package of the registry's own gRPC services.
const PACKAGE: &str = "meshwork.registry.v1";
/// Their methods.
static REGISTRYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("they were compiled with this program").file;
    let services = files.iter().filter(|file| file.package() == PACKAGE).flat_map(|file| &file.service);
    let methods = |service: &prost_types::ServiceDescriptorProto| {
        let method =
            |method: &prost_types::MethodDescriptorProto| format!("{PACKAGE}.{}/{}", service.name(), method.name());
        service.method.iter().map(method).collect::<Vec<_>>()
    };
    services.flat_map(methods).collect()
});

/// What the instances of a service have told that they serve.
#[derive(Debug, Default)]
pub(crate) struct Served<'a> {
    /// The gRPC services that they announce to clients.
    announced: BTreeSet<&'a str>,
    /// The methods that they have told, by gRPC service.
    methods: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// What of a rule is not served, and the nearest that is.
type Unserved = (String, String);

impl<'a> Served<'a> {
    /// From the full names of gRPC services and of methods.
    pub(crate) fn new(
        announced: impl IntoIterator<Item = &'a String>,
        methods: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let announced = announced.into_iter().map(String::as_str).collect();
        let mut served = Self { announced, ..Self::default() };
        for (service, method) in methods.into_iter().filter_map(|name| name.split_once('/')) {
            served.methods.entry(service).or_default().insert(method);
        }
        served
    }

    /// What the registry serves, which registers nowhere.
    pub(crate) fn by_the_registry() -> Self {
        let served = Self::new([], &*REGISTRYS);
        Self { announced: served.methods.keys().copied().collect(), ..served }
    }

    /// Checks that the gRPC services and methods that a policy's rules name are served, as far as that is known.
    pub(crate) fn check(
        &self,
        AuthorizationPolicy { service, allow, deny, .. }: &AuthorizationPolicy,
    ) -> Result<(), Violations> {
        let mut violations = Violations::default();
        for (list, rules) in [("allow", allow), ("deny", deny)] {
            if let Some((at, (unserved, nearest))) = self.first_unserved(rules) {
                violations.add(
                    &format!("policy.{list}{at}"),
                    format_args!(
                        "no instance of {service} serves {unserved:?}; the nearest that one serves is {nearest:?}"
                    ),
                );
            }
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// The first of the rules' methods that is not served, and where it is named.
    fn first_unserved(&self, rules: &[AuthorizationRule]) -> Option<(String, Unserved)> {
        let mut named = rules.iter().enumerate().flat_map(|(rule, AuthorizationRule { methods, .. })| {
            methods.iter().enumerate().map(move |(method, name)| (rule, method, name))
        });
        named.find_map(|(rule, method, name)| Some((format!("[{rule}].methods[{method}]"), self.unserved(name)?)))
    }

    /// What of a method, or of all methods of a gRPC service (`*`), is not served: the gRPC service, or only the method.
    fn unserved(&self, name: &str) -> Option<Unserved> {
        let (service, method) = name.split_once('/')?;
        match self.methods.get(service) {
            Some(methods) if method == "*" || methods.contains(method) => None,
            Some(methods) => {
                let of_service = |method: &str| format!("{service}/{method}");
                Some((of_service(&shortened(method)), of_service(nearest(method, methods.iter().copied())?)))
            }
            None if self.announced.contains(service) || !self.knows_all_like(service) => None,
            None => {
                let services = self.announced.iter().chain(self.methods.keys()).copied();
                Some((shortened(service), nearest(service, services)?.to_owned()))
            }
        }
    }

    /// Whether a gRPC service of this kind is served only if it is among those that were told.
    fn knows_all_like(&self, service: &str) -> bool {
        if service.starts_with(OWN) { !self.methods.is_empty() } else { !self.announced.is_empty() }
    }
}

/// The name that has most in common with one, at its beginning and its end: what people get wrong is a letter or the package.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let equal = |(one, other): &(u8, u8)| one == other;
    let in_common = |other: &&str| {
        let beginning = name.bytes().zip(other.bytes()).take_while(equal).count();
        beginning + name.bytes().rev().zip(other.bytes().rev()).take_while(equal).count()
    };
    names.max_by_key(in_common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_differs_in_a_letter_or_in_its_package() {
        let names = ["shop.order.v1.OrderService", "shop.order.v1.AdminService", "grpc.Other"];
        for (name, expected) in [
            ("shop.order.v1.OrderServce", "shop.order.v1.OrderService"),
            ("order.v1.OrderService", "shop.order.v1.OrderService"),
            ("shop.order.v2.AdminService", "shop.order.v1.AdminService"),
        ] {
            assert_eq!(nearest(name, names.into_iter()), Some(expected));
        }
        assert_eq!(nearest("a.B", std::iter::empty()), None);
    }
}
