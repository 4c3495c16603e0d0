//! Requests from the wire, checked field by field against the limits that the contract states.
//!
//! Only the first bad entry of a list is named: the details of an error travel in HTTP/2 trailers, which are limited
//! in size.

use std::{fmt::Display, sync::Arc, time::Duration};

use meshwork::{
    contract::meshwork::registry::v1::{
        AdoptStoreRequest, AuthorizationPolicy, Binding, DeleteAuthorizationPolicyRequest, DeleteBindingRequest,
        Instance, InstanceStatus, Policy, RegisterRequest, SetAuthorizationPolicyRequest, SetBindingRequest,
        SetPolicyRequest, WatchRequest,
    },
    instance::{
        DEFAULT_LEASE_TTL, DEFAULT_WEIGHT, InvalidField, check_id, check_instance, check_lease_ttl, check_methods,
    },
    rpc::{Page, Violations, duration},
    service_name::check_service_name,
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    policies::{check_authorization, check_binding, check_grpc_service, check_policy},
    status::DOMAIN,
    table::{Interest, LeaseId, Registration, RegistrationAttempt, Resume},
};

const MAX_WATCHED_SERVICES: usize = 1024;

/// An instance that wants a lease, with defaults filled in.
pub(crate) fn registration(request: RegisterRequest, nonce: Uuid) -> Result<Registration, Status> {
    let mut violations = Violations::default();
    let lease_ttl = violations.check("lease_ttl", lease_ttl(request.lease_ttl));
    let attempt = RegistrationAttempt { holder: request.holder, number: request.attempt, refused: request.refused };
    if !attempt.holder.is_empty() {
        violations.check("holder", check_id(&attempt.holder));
    }
    if let Err(InvalidField { field, problem }) = check_methods(&request.methods) {
        violations.add(&field, problem);
    }
    match request.instance {
        None => violations.add("instance", "is required"),
        Some(mut instance) => {
            complete(&mut instance);
            for InvalidField { field, problem } in check_instance(&instance) {
                let whole = if field.is_empty() { "instance" } else { "instance." };
                violations.add(&format!("{whole}{field}"), problem);
            }
            if let Some(lease_ttl) = lease_ttl {
                violations.into_result(DOMAIN)?;
                return Ok(Registration { instance, methods: request.methods.into(), lease_ttl, attempt, nonce });
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
    violations.check("store_id", check_id(&request.store_id));
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

/// An authorization policy that can be set.
pub(crate) fn new_authorization(request: SetAuthorizationPolicyRequest) -> Result<AuthorizationPolicy, Status> {
    let mut violations = Violations::default();
    match request.policy {
        None => violations.add("policy", "is required"),
        Some(policy) => match check_authorization(&policy) {
            Ok(()) => return Ok(policy),
            Err(wrong) => violations = wrong,
        },
    }
    Err(refuse(violations))
}

/// What takes the place of an authorization policy that is to be deleted: one without rules.
pub(crate) fn authorization_deletion(request: DeleteAuthorizationPolicyRequest) -> Result<AuthorizationPolicy, Status> {
    let DeleteAuthorizationPolicyRequest { service, etag } = request;
    let mut violations = Violations::default();
    violations.check("service", check_service_name(&service));
    if etag.is_empty() {
        violations.add("etag", "is required: the one of the policy that is to be deleted");
    }
    violations.into_result(DOMAIN)?;
    Ok(AuthorizationPolicy { service, etag, ..AuthorizationPolicy::default() })
}

/// A binding that can be set.
pub(crate) fn new_binding(request: SetBindingRequest) -> Result<Binding, Status> {
    let mut violations = Violations::default();
    match &request.binding {
        None => violations.add("binding", "is required"),
        Some(binding) => check_binding(binding, &mut violations),
    }
    violations.into_result(DOMAIN)?;
    Ok(request.binding.expect("no violation was noted"))
}

/// The name of a gRPC service.
pub(crate) fn bound(request: DeleteBindingRequest) -> Result<String, Status> {
    let mut violations = Violations::default();
    violations.check("grpc_service", check_grpc_service(&request.grpc_service));
    violations.into_result(DOMAIN)?;
    Ok(request.grpc_service)
}

/// What a watch covers, and where it resumes.
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
    let lease_ttl = duration(asked).unwrap_or_default();
    check_lease_ttl(lease_ttl).map(|()| lease_ttl)
}

/// Fills in the contract's defaults, and clears the fields that the registry sets.
fn complete(instance: &mut Instance) {
    if instance.weight == 0 {
        instance.weight = DEFAULT_WEIGHT;
    }
    if instance.status == i32::from(InstanceStatus::Unspecified) {
        instance.set_status(InstanceStatus::Serving);
    }
    instance.create_time = None;
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
