//! Bindings: which service of the mesh gets the calls that name only a gRPC service.
//!
//! The first instance that announces a gRPC service under its service's identity binds it; an operator may bind it to another.
//! Those of `grpc.` and `meshwork.` are served by every service, and bound to none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use meshwork::{
    contract::meshwork::registry::v1::{Binding, BindingOrigin, Instance, ListBindingsResponse},
    rpc::Violations,
    service_name::check_service_name,
};

use super::{Kept, Kind, PolicyError, PolicyStore, Turn, check_etag, etag};
use crate::limits::MAX_BINDINGS_TAKEN;

/// Characters of a gRPC service's name, as of those that an instance announces.
const MAX_NAME_LEN: usize = 256;

/// Which services announce a gRPC service, by its name.
pub(crate) type Announced = BTreeMap<String, BTreeSet<String>>;

impl Kept for Binding {
    const KIND: Kind = Kind::Binding;
    type List = ListBindingsResponse;

    fn name(&self) -> &str {
        &self.grpc_service
    }

    fn is_set(&self) -> bool {
        self.update_time.is_some()
    }

    fn read_back(self, now: SystemTime) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        check_binding(&self, &mut violations);
        let origin = match BindingOrigin::try_from(self.origin) {
            // A person has written it.
            Ok(BindingOrigin::Unspecified | BindingOrigin::Operator) => BindingOrigin::Operator,
            Ok(BindingOrigin::Registration) => BindingOrigin::Registration,
            Err(_) => {
                violations.add("binding.origin", "is not an origin");
                BindingOrigin::Unspecified
            }
        };
        if !violations.is_empty() {
            return Err(violations);
        }
        let update_time = self.update_time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(binding(self.grpc_service, self.service, origin, update_time.unwrap_or(now)))
    }

    fn list(bindings: Vec<Self>) -> ListBindingsResponse {
        ListBindingsResponse { bindings, next_page_token: String::new() }
    }

    fn entries(list: ListBindingsResponse) -> Vec<Self> {
        list.bindings
    }
}

/// Checks the fields of a binding that are not the registry's.
pub(crate) fn check_binding(binding: &Binding, violations: &mut Violations) {
    violations.check("binding.grpc_service", check_grpc_service(&binding.grpc_service));
    violations.check("binding.service", check_service_name(&binding.service));
}

/// Whether this can be bound.
pub(crate) fn check_grpc_service(name: &str) -> Result<(), &'static str> {
    let is_identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    match name.len() {
        0 => Err("is required"),
        1..=MAX_NAME_LEN if name.split('.').all(is_identifier) => {
            let is_every_service_s = ["grpc.", "meshwork."].iter().any(|begin| name.starts_with(begin));
            if is_every_service_s { Err("is served by every service, and bound to none") } else { Ok(()) }
        }
        _ => Err("must be the full name of a gRPC service, of up to 256 characters"),
    }
}

/// Which services announce each gRPC service that can be bound.
pub(crate) fn announced<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Announced {
    let mut announced = Announced::new();
    for Instance { service, grpc_services, .. } in instances {
        for name in grpc_services.iter().filter(|name| check_grpc_service(name).is_ok()) {
            let services = announced.entry(name.clone()).or_default();
            if !services.contains(service) {
                services.insert(service.clone());
            }
        }
    }
    announced
}

/// What comes of the gRPC services that an instance announces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Claims {
    /// Bound to no service yet.
    pub(crate) new: Vec<String>,
    /// Bound to other services.
    pub(crate) of_others: Vec<Binding>,
}

impl PolicyStore {
    /// What comes of the gRPC services that an instance of a service announces.
    pub(crate) fn claims(&self, service: &str, grpc_services: &[String]) -> Claims {
        claims(&self.0.bindings.latest(), service, grpc_services)
    }

    /// Up to `size` bindings of the gRPC services after one, bound or announced, by name.
    pub(crate) fn bindings(&self, announced: &Announced, after: Option<&str>, size: usize) -> Vec<Binding> {
        let bindings = self.0.bindings.latest();
        let names: BTreeSet<&String> = bindings.keys().chain(announced.keys()).collect();
        let later = names.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after));
        let binding = |name: &String| bindings.get(name).cloned().unwrap_or_else(|| not_bound(name));
        later.take(size).map(|name| with_announcers(binding(name), announced)).collect()
    }
}

impl Turn {
    /// Binds the gRPC services that are bound to none to a service whose instance has registered. Waits for the disk.
    pub(crate) fn bind(
        &self,
        service: &str,
        grpc_services: &[String],
        now: SystemTime,
    ) -> Result<Vec<Binding>, PolicyError> {
        let kept = &self.store.0.bindings;
        let mut bindings = kept.latest().clone();
        // Meanwhile another may have been faster.
        let new = claims(&bindings, service, grpc_services).new;
        let bound = new.into_iter().map(|name| binding(name, service.to_owned(), BindingOrigin::Registration, now));
        let bound: Vec<Binding> = bound.collect();
        if bound.is_empty() {
            return Ok(bound);
        }
        let is_taken =
            |binding: &&Binding| binding.service == service && binding.origin() == BindingOrigin::Registration;
        if bindings.values().filter(is_taken).count() + bound.len() > MAX_BINDINGS_TAKEN {
            return Err(PolicyError::TooManyTaken);
        }
        if bindings.len() + bound.len() > Kind::Binding.limit() {
            return Err(PolicyError::TooMany(Kind::Binding));
        }
        bindings.extend(bound.iter().map(|binding| (binding.grpc_service.clone(), binding.clone())));
        self.store.0.authorizations.make_file()?;
        kept.replace(bindings)?;
        Ok(bound)
    }

    /// Sets a binding that was checked, for an operator, and returns it as it is now. Waits for the disk.
    pub(crate) fn set_binding(&self, asked: Binding, now: SystemTime) -> Result<Binding, PolicyError> {
        let kept = &self.store.0.bindings;
        let mut bindings = kept.latest().clone();
        let replaces = asked.etag;
        let before = bindings.remove(&asked.grpc_service).unwrap_or_else(|| not_bound(&asked.grpc_service));
        let after = binding(asked.grpc_service, asked.service, BindingOrigin::Operator, now);
        if after.etag == before.etag {
            return Ok(before);
        }
        check_etag(Kind::Binding, &replaces, &before.etag)?;
        if bindings.len() >= Kind::Binding.limit() {
            return Err(PolicyError::TooMany(Kind::Binding));
        }
        bindings.insert(after.grpc_service.clone(), after.clone());
        self.store.0.authorizations.make_file()?;
        kept.replace(bindings)?;
        Ok(after)
    }

    /// Unbinds a gRPC service, and returns whether it was bound. Waits for the disk.
    pub(crate) fn delete_binding(&self, grpc_service: &str) -> Result<bool, PolicyError> {
        let kept = &self.store.0.bindings;
        let mut bindings = kept.latest().clone();
        if bindings.remove(grpc_service).is_none() {
            return Ok(false);
        }
        kept.replace(bindings)?;
        Ok(true)
    }
}

/// A binding with the services that announce its gRPC service.
pub(crate) fn with_announcers(binding: Binding, announced: &Announced) -> Binding {
    let services = announced.get(&binding.grpc_service).into_iter().flatten();
    Binding { announced_by: services.cloned().collect(), ..binding }
}

fn claims(bindings: &BTreeMap<String, Binding>, service: &str, grpc_services: &[String]) -> Claims {
    let mut claims = Claims::default();
    for name in grpc_services.iter().filter(|name| check_grpc_service(name).is_ok()) {
        match bindings.get(name) {
            None => claims.new.push(name.clone()),
            Some(binding) if binding.service != service => claims.of_others.push(binding.clone()),
            Some(_) => {}
        }
    }
    claims.new.sort();
    claims.new.dedup();
    claims
}

fn not_bound(grpc_service: &str) -> Binding {
    let binding = Binding { grpc_service: grpc_service.to_owned(), ..Binding::default() };
    Binding { etag: etag(&binding), ..binding }
}

fn binding(grpc_service: String, service: String, origin: BindingOrigin, update_time: SystemTime) -> Binding {
    let plain = Binding { grpc_service, service, origin: origin.into(), ..Binding::default() };
    Binding { etag: etag(&plain), update_time: Some(update_time.into()), ..plain }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        limits::MAX_BINDINGS,
        policies::{Shared, collection::Collection},
    };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_the_full_name_of_a_service_that_not_every_service_serves_can_be_bound() {
        for good in ["Greeter", "shop.order.v1.OrderService", "a._b2.C", "meshworks.X", "grpcs.X"] {
            assert_eq!(check_grpc_service(good), Ok(()), "{good}");
        }
        let long = "a".repeat(257);
        for bad in ["", ".", "a.", ".a", "a..b", "2a.B", "a b", "a/B", "ä.B", "a\u{1b}.B", &long] {
            assert!(check_grpc_service(bad).is_err(), "{bad}");
        }
        for every in ["grpc.health.v1.Health", "meshwork.event.v1.EventService"] {
            assert_eq!(check_grpc_service(every), Err("is served by every service, and bound to none"));
        }
    }

    #[tokio::test]
    async fn a_full_registry_binds_nothing_more_and_still_binds_anew_what_is_bound() {
        let now = SystemTime::now();
        let full = (0..MAX_BINDINGS).map(|n| binding(format!("a.S{n}"), "a".into(), BindingOrigin::Operator, now));
        let store = PolicyStore(Arc::new(Shared { bindings: Collection::of(full), ..Shared::default() }));
        let turn = store.turn().await;
        let set = |name: &str| {
            let asked = Binding { grpc_service: name.into(), service: "b".into(), ..Binding::default() };
            turn.set_binding(asked, now)
        };
        let too_many = PolicyError::TooMany(Kind::Binding);
        assert_eq!(turn.bind("b", &names(&["b.S"]), now), Err(too_many));
        assert_eq!(turn.bind("b", &names(&["a.S0"]), now), Ok(Vec::new()));
        assert_eq!(set("b.S"), Err(too_many));
        assert!(set("a.S0").is_ok());
        assert_eq!(turn.delete_binding("a.S1"), Ok(true));
        assert!(set("b.S").is_ok());
    }

    #[tokio::test]
    async fn a_service_that_announces_ever_new_names_leaves_room_for_others() {
        let now = SystemTime::now();
        let taken = 0..MAX_BINDINGS_TAKEN;
        let taken = taken.map(|n| binding(format!("a.S{n}"), "a".into(), BindingOrigin::Registration, now));
        let store = PolicyStore(Arc::new(Shared { bindings: Collection::of(taken), ..Shared::default() }));
        let turn = store.turn().await;
        assert_eq!(turn.bind("a", &names(&["a.New"]), now), Err(PolicyError::TooManyTaken));
        assert_eq!(turn.bind("b", &names(&["b.S"]), now).map(|bound| bound.len()), Ok(1));
        let asked = Binding { grpc_service: "a.New".into(), service: "a".into(), ..Binding::default() };
        assert!(turn.set_binding(asked, now).is_ok(), "an operator's word is not counted");
        assert_eq!(turn.delete_binding("a.S0"), Ok(true));
        assert!(turn.bind("a", &names(&["a.Newer"]), now).is_ok());
    }
}
