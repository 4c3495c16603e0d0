//! The method that `meshwork authz check` is asked about, and whose it is.

use std::{collections::BTreeSet, fmt};

use meshwork::contract::meshwork::registry::v1::{Binding, Instance};
use meshwork_process::to_stderr;

use super::method_name::{MethodName, Whose};
use crate::{bindings::owner, directory::Directory, error::Error};

/// The beginnings of the names of gRPC services that are not the user's.
const NOT_THE_USERS: [&str; 2] = [GRPC, "meshwork."];
/// Those of gRPC itself, which no instance announces.
const GRPC: &str = "grpc.";

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) grpc_service: String,
    pub(super) method: String,
}

impl Method {
    /// As in a call.
    pub(super) fn path(&self) -> String {
        format!("/{self}")
    }
}

/// As in rules.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.grpc_service, self.method)
    }
}

impl Directory {
    /// Which method of which service is meant, by what instances announce and what is bound.
    pub(super) async fn method(&self, name: &MethodName) -> Result<Method, Error> {
        let (service, grpc_service) = match &name.whose {
            Whose::Both { service, grpc_service } => {
                self.warn_of_unserved(service, grpc_service).await?;
                (service.clone(), grpc_service.clone())
            }
            Whose::Service(service) => {
                let instances = self.instances(service).await?;
                (service.clone(), only_one(service, &instances).map_err(unclear(name))?)
            }
            Whose::GrpcService(grpc_service) => {
                let bindings = self.bindings().await?;
                (only_owner(grpc_service, &bindings).map_err(unclear(name))?, grpc_service.clone())
            }
        };
        Ok(Method { service, grpc_service, method: name.method.clone() })
    }

    /// Warns on stderr of a gRPC service that no instance announces: its name may be misspelled.
    async fn warn_of_unserved(&self, service: &str, grpc_service: &str) -> Result<(), Error> {
        let instances = match self.instances(service).await {
            Err(Error::UnknownService(_)) => return self.warn_of_unregistered(service).await,
            instances => instances?,
        };
        if !instances.is_empty() && !grpc_service.starts_with(GRPC) && !announced(&instances).contains(grpc_service) {
            to_stderr(format_args!("warning: no instance of {service} serves {grpc_service:?}"));
        }
        Ok(())
    }
}

fn unclear(name: &MethodName) -> impl FnOnce(String) -> Error {
    move |problem| Error::flag("SERVICE/METHOD", name, problem)
}

fn announced(instances: &[Instance]) -> BTreeSet<&str> {
    instances.iter().flat_map(|instance| &instance.grpc_services).map(String::as_str).collect()
}

/// The user's gRPC service that a service announces, if it is a single one.
fn only_one(service: &str, instances: &[Instance]) -> Result<String, String> {
    let is_the_users = |name: &&str| !NOT_THE_USERS.iter().any(|begin| name.starts_with(begin));
    match &announced(instances).into_iter().filter(is_the_users).collect::<Vec<_>>()[..] {
        [] => Err(format!("no instance of {service} announces a gRPC service: write {service}/PACKAGE.SERVICE/METHOD")),
        [one] => Ok((*one).to_owned()),
        several => {
            Err(format!("{service} serves {}: name one, as in {service}/{}/METHOD", several.join(", "), several[0]))
        }
    }
}

/// The service that a gRPC service is bound to, or the only one that announces it.
fn only_owner(grpc_service: &str, bindings: &[Binding]) -> Result<String, String> {
    let binding = bindings.iter().find(|binding| binding.grpc_service == grpc_service);
    if let Some(service) = binding.and_then(owner) {
        return Ok(service.to_owned());
    }
    let problem = match binding.map(|binding| binding.announced_by.join(", ")) {
        Some(several) if !several.is_empty() => format!("{several} serve it, and it is bound to none"),
        _ => format!("{grpc_service} is bound to no service, and none announces it"),
    };
    Err(format!("{problem}: write SERVICE/{grpc_service}/METHOD"))
}

#[cfg(test)]
mod tests {
    use super::{super::method_name::InvalidMethodName, *};

    fn parsed(text: &str) -> Whose {
        text.parse::<MethodName>().expect(text).whose
    }

    #[test]
    fn a_method_is_named_with_its_service_its_grpc_service_or_both() {
        let [order, grpc_service] = ["order", "shop.order.v1.OrderService"].map(str::to_owned);
        assert_eq!(parsed("order/GetOrder"), Whose::Service(order.clone()));
        assert_eq!(parsed("shop.order.v1.OrderService/GetOrder"), Whose::GrpcService(grpc_service.clone()));
        assert_eq!(parsed("Greeter/Hello"), Whose::GrpcService("Greeter".into()), "without a package");
        let whole = "order/shop.order.v1.OrderService/GetOrder";
        assert_eq!(parsed(whole), Whose::Both { service: order, grpc_service });
        assert_eq!(whole.parse::<MethodName>().expect(whole).to_string(), whole);
        for bad in [
            "",
            "order",
            "/a.C/Get",
            "order/",
            "order/*",
            "a.C/*",
            "order/a.C/*",
            "a..C/Get",
            "x/a.C/Get/y",
            "A-b/Get",
            "order/2",
        ] {
            assert_eq!(bad.parse::<MethodName>(), Err(InvalidMethodName), "{bad}");
        }
    }

    #[test]
    fn a_service_is_enough_if_it_serves_a_single_grpc_service() {
        let instance = |names: &[&str]| Instance {
            grpc_services: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Instance::default()
        };
        let of_the_mesh = instance(&["grpc.health.v1.Health", "meshwork.event.v1.EventService"]);
        let get = |names: &[&str]| only_one("order", &[of_the_mesh.clone(), instance(names)]);
        assert_eq!(get(&["a.C"]).as_deref(), Ok("a.C"));
        assert_eq!(get(&["b.D", "a.C"]).expect_err("two"), "order serves a.C, b.D: name one, as in order/a.C/METHOD");
        let none = "no instance of order announces a gRPC service: write order/PACKAGE.SERVICE/METHOD";
        assert_eq!(get(&[]).expect_err("none"), none);
    }

    #[test]
    fn a_grpc_service_is_enough_if_it_is_bound_or_announced_by_one() {
        let binding = |name: &str, service: &str, announced_by: &[&str]| Binding {
            grpc_service: name.into(),
            service: service.into(),
            announced_by: announced_by.iter().map(|name| (*name).to_owned()).collect(),
            ..Binding::default()
        };
        let bindings = [
            binding("a.A", "one", &["two", "three"]),
            binding("a.B", "", &["two"]),
            binding("a.C", "", &["one", "two"]),
        ];
        assert_eq!(only_owner("a.A", &bindings).as_deref(), Ok("one"));
        assert_eq!(only_owner("a.B", &bindings).as_deref(), Ok("two"));
        let several = "one, two serve it, and it is bound to none: write SERVICE/a.C/METHOD";
        assert_eq!(only_owner("a.C", &bindings).expect_err("ambiguous"), several);
        let none = "a.D is bound to no service, and none announces it: write SERVICE/a.D/METHOD";
        assert_eq!(only_owner("a.D", &bindings).expect_err("unknown"), none);
    }
}
