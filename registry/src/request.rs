//! Requests from the wire, checked field by field against the limits that the contract states.
//!
//! Of a list the first bad entry is named, not all: the details of an error travel in HTTP/2 trailers, which have limits of
//! their own.

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use meshwork::{
    address::parse_address,
    contract::meshwork::registry::v1::{
        AdoptStoreRequest, IdempotencyLevel, IdempotentMethod, Instance, InstanceStatus, Policy, RegisterRequest,
        SetPolicyRequest, StoreScope, WatchRequest,
    },
    discovery::DEFAULT_WEIGHT,
    rpc::{Page, Violations, duration},
    service_name::check_service_name,
};
use prost::Message as _;
use tonic::Status;

use crate::{
    limits::{DEFAULT_LEASE_TTL, LEASE_TTL},
    policies::check_policy,
    status::DOMAIN,
    table::{Interest, LeaseId, RegistrationAttempt, Resume},
};

const MAX_WEIGHT: u32 = 1000;
const MAX_TEXT_LEN: usize = 128;
const MAX_PLACE_LEN: usize = 256;
const MAX_LABELS: usize = 64;
const MAX_LABEL_LEN: usize = 256;
const MAX_NAME_LEN: usize = 256;
const MAX_GRPC_SERVICES: usize = 256;
const MAX_IDEMPOTENT_METHODS: usize = 1024;
const MAX_WATCHED_SERVICES: usize = 1024;
/// Every watcher of the service gets it in one message with all the others: of what the fields may hold, none needs all.
const MAX_INSTANCE_BYTES: usize = 128 << 10;

/// An instance and its lease's time, with defaults filled in.
pub(crate) fn registration(request: RegisterRequest) -> Result<(Instance, Duration, RegistrationAttempt), Status> {
    let mut violations = Violations::default();
    let lease_ttl = violations.check("lease_ttl", lease_ttl(request.lease_ttl));
    let attempt = RegistrationAttempt { holder: request.holder, number: request.attempt, refused: request.refused };
    if !attempt.holder.is_empty() {
        violations.check("holder", visible(&attempt.holder));
    }
    match request.instance {
        None => violations.add("instance", "is required"),
        Some(mut instance) => {
            complete(&mut instance);
            check_instance(&instance, &mut violations);
            if let Some(lease_ttl) = lease_ttl {
                violations.into_result(DOMAIN)?;
                return Ok((instance, lease_ttl, attempt));
            }
        }
    }
    Err(refuse(violations))
}

/// A lease id; any text could be one, but none at all, or more than was ever given out, is a mistake.
pub(crate) fn lease_id(text: String, violations: &mut Violations) -> LeaseId {
    match text.len() {
        0 => violations.add("lease_id", "is required"),
        1..=LeaseId::MAX_LEN => {}
        _ => violations.add("lease_id", format!("is longer than {} characters", LeaseId::MAX_LEN)),
    }
    LeaseId::from_client(text)
}

/// A status that can be set.
pub(crate) fn status(number: i32, violations: &mut Violations) -> Option<InstanceStatus> {
    let status = match InstanceStatus::try_from(number) {
        Ok(InstanceStatus::Unspecified) => Err("is required"),
        Ok(status) => Ok(status),
        Err(_) => Err("is not a status"),
    };
    violations.check("status", status)
}

/// A page, and the text after which it begins.
pub(crate) fn page(
    filter: &str,
    page_size: i32,
    page_token: &str,
    violations: &mut Violations,
) -> Option<(usize, Option<String>)> {
    let page = Page::parse(filter.as_bytes(), page_size, page_token, violations)?;
    let after = page.after.map(String::from_utf8).transpose();
    Some((page.size, violations.check("page_token", after.map_err(|_| meshwork::rpc::InvalidToken))?))
}

/// A service, and the store that it is to adopt.
pub(crate) fn adoption(request: AdoptStoreRequest) -> Result<(String, String), Status> {
    let mut violations = Violations::default();
    violations.check("service", check_service_name(&request.service));
    violations.check("store_id", visible(&request.store_id));
    violations.into_result(DOMAIN)?;
    Ok((request.service, request.store_id))
}

/// A service's name.
pub(crate) fn service(name: String) -> Result<String, Status> {
    let mut violations = Violations::default();
    violations.check("service", check_service_name(&name));
    violations.into_result(DOMAIN)?;
    Ok(name)
}

/// A policy that can be set.
pub(crate) fn new_policy(request: SetPolicyRequest) -> Result<Policy, Status> {
    let mut violations = Violations::default();
    match request.policy {
        None => violations.add("policy", "is required"),
        Some(policy) => match check_policy(&policy) {
            Ok(()) => return Ok(policy),
            Err(wrong) => violations = wrong,
        },
    }
    Err(refuse(violations))
}

/// What a watch is about, and where it goes on.
pub(crate) fn watch(request: WatchRequest) -> Result<(Interest, Option<Resume>), Status> {
    let mut violations = Violations::default();
    let services = &request.services;
    list("services", services, MAX_WATCHED_SERVICES, |name| ("", check_service_name(name)), &mut violations);
    violations.into_result(DOMAIN)?;
    let resume = request.resume_from.map(|point| Resume { epoch: point.epoch, revision: point.revision });
    Ok((Interest::of(request.services.into_iter().map(Arc::<str>::from)), resume))
}

fn refuse(violations: Violations) -> Status {
    violations.into_result(DOMAIN).expect_err("a violation was noted")
}

fn lease_ttl(asked: Option<prost_types::Duration>) -> Result<Duration, &'static str> {
    let Some(asked) = asked else { return Ok(DEFAULT_LEASE_TTL) };
    duration(asked).filter(|ttl| LEASE_TTL.contains(ttl)).ok_or("must be 1-300 s")
}

/// Fills in what the contract gives a meaning to if it is not said, and takes away what the registry says itself.
fn complete(instance: &mut Instance) {
    if instance.weight == 0 {
        instance.weight = DEFAULT_WEIGHT;
    }
    if instance.status == i32::from(InstanceStatus::Unspecified) {
        instance.set_status(InstanceStatus::Serving);
    }
    instance.create_time = None;
}

fn check_instance(instance: &Instance, violations: &mut Violations) {
    if instance.encoded_len() > MAX_INSTANCE_BYTES {
        violations.add("instance", "must be up to 128 KiB");
    }
    violations.check("instance.service", check_service_name(&instance.service));
    violations.check("instance.instance_id", visible(&instance.instance_id));
    violations.check("instance.address", address(&instance.address));
    violations.check("instance.version", text(&instance.version));
    violations.check("instance.zone", text(&instance.zone));
    if instance.weight > MAX_WEIGHT {
        violations.add("instance.weight", "must be 1-1000, or 0 for 100");
    }
    if InstanceStatus::try_from(instance.status).is_err() {
        violations.add("instance.status", "is not a status");
    }
    if !instance.store_id.is_empty() {
        violations.check("instance.store_id", visible(&instance.store_id));
    }
    if instance.store_place.chars().count() > MAX_PLACE_LEN {
        violations.add("instance.store_place", "must be up to 256 characters");
    }
    if StoreScope::try_from(instance.store_scope).is_err() {
        violations.add("instance.store_scope", "is not a scope");
    }
    violations.check("instance.labels", labels(&instance.labels));
    let services = &instance.grpc_services;
    list("instance.grpc_services", services, MAX_GRPC_SERVICES, |name| ("", full_name(name)), violations);
    let methods = &instance.idempotent_methods;
    list("instance.idempotent_methods", methods, MAX_IDEMPOTENT_METHODS, idempotent_method, violations);
}

/// Checks the length of a list, and its entries up to the first bad one; `check` also says where in the entry it looked.
fn list<T, E: Display>(
    field: &str,
    entries: &[T],
    limit: usize,
    check: impl Fn(&T) -> (&'static str, Result<(), E>),
    violations: &mut Violations,
) {
    if entries.len() > limit {
        return violations.add(field, format!("must have up to {limit} entries"));
    }
    for (index, entry) in entries.iter().enumerate() {
        if let (part, Err(description)) = check(entry) {
            return violations.add(&format!("{field}[{index}]{part}"), description);
        }
    }
}

fn visible(id: &str) -> Result<(), &'static str> {
    match id.len() {
        0 => Err("is required"),
        1..=MAX_TEXT_LEN if id.bytes().all(|c| c.is_ascii_graphic()) => Ok(()),
        _ => Err("must be 1-128 visible ASCII characters"),
    }
}

fn address(address: &str) -> Result<(), &'static str> {
    match parse_address(address) {
        _ if address.is_empty() => Err("is required"),
        Ok(_) => Ok(()),
        Err(_) => Err("must be host:port, 1-255 visible characters"),
    }
}

fn text(text: &str) -> Result<(), &'static str> {
    if text.chars().count() <= MAX_TEXT_LEN { Ok(()) } else { Err("must be up to 128 characters") }
}

fn labels(labels: &HashMap<String, String>) -> Result<(), &'static str> {
    if labels.len() > MAX_LABELS {
        return Err("must have up to 64 entries");
    }
    let fits = |text: &String| text.chars().count() <= MAX_LABEL_LEN;
    let good = labels.iter().all(|(key, value)| !key.is_empty() && fits(key) && fits(value));
    if good { Ok(()) } else { Err("keys must be 1-256 characters, values up to 256") }
}

fn full_name(name: &str) -> Result<(), &'static str> {
    match name.chars().count() {
        0 => Err("is required"),
        1..=MAX_NAME_LEN => Ok(()),
        _ => Err("must be up to 256 characters"),
    }
}

fn idempotent_method(method: &IdempotentMethod) -> (&'static str, Result<(), &'static str>) {
    match IdempotencyLevel::try_from(method.idempotency_level) {
        Ok(_) => (".method", full_name(&method.method)),
        Err(_) => (".idempotency_level", Err("is not an idempotency level")),
    }
}
