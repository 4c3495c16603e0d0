//! Fields that many requests have: ids, money, and the `request_id` that makes a creation repeatable (AIP-155).

use std::hash::Hasher as _;

use meshwork::rpc::Violations;
use prost::Message;
use uuid::Uuid;

use crate::{Amount, contract::shop::r#type::v1::Money};

/// What a repeated creation is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller's `request_id`.
    pub id: Uuid,
    /// Hash of everything else in the request: the same id with another body is refused.
    pub body_hash: i64,
}

impl RequestKey {
    /// The key of a request with this id. `body` is the request in canonical form and without its id, so that one
    /// request has one hash however it was spelled. The hash (FNV-1a) is stored: it must never change.
    pub fn new(id: Uuid, body: &impl Message) -> Self {
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(&body.encode_to_vec());
        Self { id, body_hash: hasher.finish().cast_signed() }
    }
}

/// The text is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID such as 0198c0de-0000-7000-8000-000000000000")]
pub struct InvalidId;

/// Reads an id: any UUID, in any case. `Uuid`'s `Display` is the canonical text that goes out.
pub fn parse_id(text: &str) -> Result<Uuid, InvalidId> {
    Uuid::try_parse(text).map_err(|_| InvalidId)
}

/// A required id, or a note of what is wrong with it.
pub fn check_id(violations: &mut Violations, field: &str, text: &str) -> Option<Uuid> {
    violations.check(field, parse_id(text))
}

/// The optional `request_id`, or a note of what is wrong with it. The outer `None`: it is wrong.
pub fn check_request_id(violations: &mut Violations, text: &str) -> Option<Option<Uuid>> {
    if text.is_empty() { Some(None) } else { check_id(violations, "request_id", text).map(Some) }
}

/// Required money, or a note of which of its fields is wrong, as in `total.nanos`.
pub fn check_money(violations: &mut Violations, field: &str, money: Option<&Money>) -> Option<Amount> {
    let Some(money) = money else {
        violations.add(field, "is required");
        return None;
    };
    Amount::try_from(money).map_err(|error| violations.add(&format!("{field}.{}", error.field()), error)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(units: i64) -> Money {
        Money { currency_code: "USD".into(), units, nanos: 0 }
    }

    #[test]
    fn a_stored_body_hash_stays_comparable_over_versions() {
        assert_eq!(RequestKey::new(Uuid::nil(), &body(12)).body_hash, -7_654_633_837_900_116_154);
        assert_ne!(RequestKey::new(Uuid::nil(), &body(12)), RequestKey::new(Uuid::nil(), &body(13)));
    }

    #[test]
    fn any_uuid_comes_in_and_canonical_text_goes_out() {
        let text = "0198C0DE-0000-4000-8000-00000000000A";
        assert_eq!(parse_id(text).expect("a UUID").to_string(), text.to_lowercase());
        for bad in ["", "1", "not-a-uuid", "0198c0de-0000-4000-8000-00000000000g"] {
            assert_eq!(parse_id(bad), Err(InvalidId), "{bad}");
        }
    }

    #[test]
    fn violations_name_the_field_within_money() {
        let mut violations = Violations::default();
        assert_eq!(check_money(&mut violations, "total", None), None);
        assert_eq!(check_money(&mut violations, "total", Some(&body(-1))), None);
        assert_eq!(check_request_id(&mut violations, ""), Some(None));
        assert_eq!(check_request_id(&mut violations, "x"), None);

        let status = violations.into_result(meshwork::rpc::Domain::new("test.shop")).expect_err("three are wrong");

        for part in ["total: is required", "total.units: must not be negative", "request_id: must be a UUID"] {
            assert!(status.message().contains(part), "{part} in {}", status.message());
        }
    }
}
