//! Which policies can be set.

use meshwork::{contract::meshwork::registry::v1::Policy, policy, rpc::Violations, service_name::check_service_name};

/// Whether a policy has a service, and values that clients accept.
pub(crate) fn check_policy(policy: &Policy) -> Result<(), Violations> {
    let mut violations = policy::Policy::try_from(policy).err().unwrap_or_default();
    violations.check("policy.service", check_service_name(&policy.service));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}
