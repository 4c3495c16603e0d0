//! The limits of an authorization policy, as in the contract.

use std::ops::RangeInclusive;

/// Rules of `allow`: a policy without any would close the service, which is more likely a mistake.
pub const ALLOW_RULES: RangeInclusive<usize> = 1..=256;
/// Rules of `deny`.
pub const MAX_DENY_RULES: usize = 256;
/// Callers of a rule.
pub const CALLERS: RangeInclusive<usize> = 1..=64;
/// Methods of a rule.
pub const METHODS: RangeInclusive<usize> = 1..=64;
/// Callers whose `meshwork-subject` is believed.
pub const MAX_SUBJECT_CALLERS: usize = 64;
/// Bytes of a policy: every instance of the service holds it, and each change of it is sent to all watchers.
pub const MAX_POLICY_BYTES: usize = 64 << 10;
