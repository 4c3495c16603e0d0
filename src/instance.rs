//! The limits on what an instance may register, in one place. The flags of a process are checked against them before
//! anything is made, a server checks them before it serves, and the registry on every request. The contract states them too.

use std::{collections::HashMap, fmt::Display, ops::RangeInclusive, time::Duration};

use prost::Message as _;

use crate::{
    address::parse_advertised,
    contract::meshwork::registry::v1::{IdempotencyLevel, IdempotentMethod, Instance, InstanceStatus, StoreScope},
    service_name::check_service_name,
};

/// An instance's share of the load relative to the others.
pub const WEIGHT: RangeInclusive<u32> = 1..=1000;
/// The share of an instance that asks for none, to which those of others are relative.
pub const DEFAULT_WEIGHT: u32 = 100;
/// How long an instance may stay registered without a sign of life.
pub const LEASE_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// The lease of an instance that asks for no particular time.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(10);
/// Characters of a store's place.
pub(crate) const MAX_STORE_PLACE_LEN: usize = 256;

const MAX_TEXT_LEN: usize = 128;
const MAX_LABELS: usize = 64;
const MAX_LABEL_LEN: usize = 256;
const MAX_NAME_LEN: usize = 256;
const MAX_GRPC_SERVICES: usize = 256;
const MAX_IDEMPOTENT_METHODS: usize = 1024;
/// Sixteen for each gRPC service that an instance may announce.
const MAX_METHODS: usize = 4096;
/// Each watcher gets the whole service in one message, so one instance must stay small.
const MAX_INSTANCE_BYTES: usize = 128 << 10;

/// A field of an instance that is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// Its name in the contract's `Instance`, such as `zone` or `grpc_services[3]`; or `lease_ttl`, `methods` or `methods[3]` of its
    /// registration; empty: the whole instance.
    pub field: String,
    /// What is accepted.
    pub problem: String,
}

impl InvalidField {
    pub(crate) fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

/// All fields that are invalid; of a list the first bad entry. A weight of 0 is the default, and so is a status that
/// is not given.
pub fn check_instance(instance: &Instance) -> Vec<InvalidField> {
    let mut check = Check(Vec::new());
    if instance.encoded_len() > MAX_INSTANCE_BYTES {
        check.note("", Err("must be up to 128 KiB"));
    }
    check.note("service", check_service_name(&instance.service));
    check.note("instance_id", check_id(&instance.instance_id));
    check.note("address", parse_advertised(&instance.address).map(drop));
    check.note("version", check_text(&instance.version));
    check.note("zone", check_text(&instance.zone));
    if instance.weight > *WEIGHT.end() {
        check.note("weight", Err("must be 1-1000, or 0 for 100"));
    }
    check.note("status", InstanceStatus::try_from(instance.status).map(drop).map_err(|_| "is not a status"));
    if !instance.store_id.is_empty() {
        check.note("store_id", check_id(&instance.store_id));
    }
    if instance.store_place.chars().count() > MAX_STORE_PLACE_LEN {
        check.note("store_place", Err("must be up to 256 characters"));
    }
    check.note("store_scope", StoreScope::try_from(instance.store_scope).map(drop).map_err(|_| "is not a scope"));
    check.note("labels", check_labels(&instance.labels));
    check.list("grpc_services", &instance.grpc_services, MAX_GRPC_SERVICES, |name| ("", full_name(name)));
    check.list("idempotent_methods", &instance.idempotent_methods, MAX_IDEMPOTENT_METHODS, idempotent_method);
    check.0
}

/// Whether a registration can say that the instance has these methods: up to 4096 names of 1-256 characters, 128 KiB in all.
///
/// # Errors
/// The list, if it is too long; else its first bad entry.
pub fn check_methods(methods: &[String]) -> Result<(), InvalidField> {
    let mut check = Check(Vec::new());
    check.list("methods", methods, MAX_METHODS, |name| ("", full_name(name)));
    if methods.iter().map(String::len).sum::<usize>() > MAX_INSTANCE_BYTES {
        check.note("methods", Err("must be up to 128 KiB"));
    }
    check.0.into_iter().next().map_or(Ok(()), Err)
}

/// Whether this can be an id of an instance or a store: 1-128 visible ASCII characters, so that it can be a header's value.
///
/// # Errors
/// What is accepted.
pub fn check_id(id: &str) -> Result<(), &'static str> {
    match id.len() {
        0 => Err("is required"),
        1..=MAX_TEXT_LEN if id.bytes().all(|c| c.is_ascii_graphic()) => Ok(()),
        _ => Err("must be 1-128 visible ASCII characters"),
    }
}

/// Whether this can be a version or a zone; empty: unknown.
///
/// # Errors
/// What is accepted.
pub fn check_text(text: &str) -> Result<(), &'static str> {
    let good = text.chars().count() <= MAX_TEXT_LEN && is_visible(text);
    if good { Ok(()) } else { Err("must be up to 128 visible characters") }
}

/// Whether what a person sees of a text is all of it, and the same on every terminal: no control characters, none that have no
/// width or change the direction of writing, and no blanks at its ends.
fn is_visible(text: &str) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
            || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.trim() == text && !text.contains(is_hidden)
}

/// Whether this can be a label.
///
/// # Errors
/// What is accepted.
pub fn check_label(key: &str, value: &str) -> Result<(), &'static str> {
    let fits = |text: &str| text.chars().count() <= MAX_LABEL_LEN && is_visible(text);
    let good = !key.is_empty() && fits(key) && fits(value);
    if good { Ok(()) } else { Err("keys must be 1-256 visible characters, values up to 256") }
}

/// Whether a lease may last that long.
///
/// # Errors
/// What is accepted.
pub fn check_lease_ttl(lease_ttl: Duration) -> Result<(), &'static str> {
    if LEASE_TTL.contains(&lease_ttl) { Ok(()) } else { Err("must be 1-300 s") }
}

struct Check(Vec<InvalidField>);

impl Check {
    fn note<E: Display>(&mut self, field: &str, result: Result<(), E>) {
        if let Err(problem) = result {
            self.0.push(InvalidField::new(field, problem));
        }
    }

    /// Checks the length of a list, and its entries up to the first bad one: the details of an error travel in HTTP/2 trailers,
    /// which are limited in size. `check` also says where in the entry it looked.
    fn list<T>(
        &mut self,
        field: &str,
        entries: &[T],
        limit: usize,
        check: impl Fn(&T) -> (&'static str, Result<(), &'static str>),
    ) {
        if entries.len() > limit {
            return self.0.push(InvalidField::new(field, format_args!("must have up to {limit} entries")));
        }
        for (index, entry) in entries.iter().enumerate() {
            if let (part, Err(problem)) = check(entry) {
                return self.0.push(InvalidField::new(format!("{field}[{index}]{part}"), problem));
            }
        }
    }
}

fn check_labels(labels: &HashMap<String, String>) -> Result<(), &'static str> {
    if labels.len() > MAX_LABELS {
        return Err("must have up to 64 entries");
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Instance {
        Instance {
            service: "order".into(),
            instance_id: "1".into(),
            address: "127.0.0.1:1".into(),
            ..Instance::default()
        }
    }

    #[test]
    fn what_a_person_sees_of_a_version_is_all_of_it() {
        for good in ["", "1.2.3-rc.1+x", "version zwei", "版本", "v٣", "🦀"] {
            assert_eq!(check_text(good), Ok(()), "{good:?}");
        }
        for bad in [
            " v1",
            "v1\n",
            "v\t1",
            "\u{1b}[31m",
            "v\0",
            "v\u{200b}1",
            "\u{202e}1v",
            "v1\u{e0041}",
            "\u{3164}",
            "\u{61c}v",
        ] {
            assert!(check_text(bad).is_err(), "{bad:?}");
            assert!(check_label("team", bad).is_err() && check_label(bad, "red").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_field_that_cannot_be_as_it_is_is_named() {
        assert_eq!(check_instance(&good()), []);
        let long = |len: usize| "x".repeat(len);
        let cases: [(&str, Instance); 9] = [
            ("service", Instance { service: "Order".into(), ..good() }),
            ("instance_id", Instance { instance_id: "a b".into(), ..good() }),
            ("address", Instance { address: "0.0.0.0:80".into(), ..good() }),
            ("version", Instance { version: long(129), ..good() }),
            ("zone", Instance { zone: long(129), ..good() }),
            ("weight", Instance { weight: 1001, ..good() }),
            ("labels", Instance { labels: [(long(257), String::new())].into(), ..good() }),
            ("grpc_services[1]", Instance { grpc_services: vec!["a.B".into(), String::new()], ..good() }),
            ("store_place", Instance { store_place: long(257), ..good() }),
        ];
        for (field, instance) in cases {
            let found = check_instance(&instance);
            assert_eq!(found.iter().map(|bad| bad.field.as_str()).collect::<Vec<_>>(), [field]);
        }
    }
}
