//! The name of a new service, and what is made of it in a package, a contract and generated code.

use std::str::FromStr;

use heck::ToUpperCamelCase as _;
use meshwork::service_name::{InvalidServiceName, check_service_name};

use super::manifest;

/// What no package can be called: Rust's keywords (strict and reserved), the crates that come with Rust, the folders of Cargo's
/// builds, and the services that a mesh of `meshwork up` has already.
const RESERVED: &str = "\
abstract alloc as async await become box break build const continue core crate customer deps do dyn else enum examples extern \
false final fn for gen if impl in incremental let loop macro match mod move mut order override priv proc-macro pub query ref \
registry return self static std struct super test trait true try type typeof union unsafe unsized use virtual where while yield";

const RULE: &str = "must be 1-63 lowercase letters, digits and hyphens, begin with a letter, and not end with a hyphen or have \
                    two in a row";

/// A name that a service and its package can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageName(String);

/// Why a text is no [`PackageName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPackageName {
    /// No service can be called that.
    #[error("{RULE}")]
    Service(#[from] InvalidServiceName),
    /// It is not made of words.
    #[error("{RULE}")]
    NotWords,
    /// Rust, Cargo or the mesh has it for something else.
    #[error("is a name that Rust, Cargo or the mesh itself uses; choose another name")]
    Reserved,
    /// The package would be one of its own dependencies.
    #[error("is the name of a crate that the package depends on; choose another name")]
    Dependency,
}

impl FromStr for PackageName {
    type Err = InvalidPackageName;

    fn from_str(name: &str) -> Result<Self, InvalidPackageName> {
        check_service_name(name)?;
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.split('-').any(str::is_empty) {
            return Err(InvalidPackageName::NotWords);
        }
        if RESERVED.split(' ').any(|reserved| reserved == name) {
            return Err(InvalidPackageName::Reserved);
        }
        if name.starts_with("meshwork") || manifest::dependencies().any(|dependency| dependency == name) {
            return Err(InvalidPackageName::Dependency);
        }
        Ok(Self(name.to_owned()))
    }
}

impl PackageName {
    /// As it was given: the service and the package.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The crate, and the package in the contract.
    pub(super) fn snake(&self) -> String {
        self.0.replace('-', "_")
    }

    /// The service in the contract. prost makes the same name of it again, which it does not of every one: `ABService` becomes
    /// `AbService`.
    pub(super) fn service(&self) -> String {
        format!("{}Service", self.0.to_upper_camel_case()).to_upper_camel_case()
    }

    /// The module of generated code for the service, without `_server` or `_client`: tonic parts words at capitals alone.
    pub(super) fn module(&self) -> String {
        let mut module = String::new();
        for c in self.service().chars() {
            if c.is_ascii_uppercase() && !module.is_empty() {
                module.push('_');
            }
            module.push(c.to_ascii_lowercase());
        }
        module
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_forms_in_the_package_the_contract_and_the_generated_code() {
        for (name, snake, service, module) in [
            ("inventory", "inventory", "InventoryService", "inventory_service"),
            ("order-history", "order_history", "OrderHistoryService", "order_history_service"),
            ("greeter-2", "greeter_2", "Greeter2Service", "greeter2_service"),
            ("a-b", "a_b", "AbService", "ab_service"),
            ("x-ray", "x_ray", "XRayService", "x_ray_service"),
        ] {
            let parsed: PackageName = name.parse().expect(name);
            assert_eq!(
                (parsed.snake(), parsed.service(), parsed.module()),
                (snake.into(), service.into(), module.into())
            );
        }
    }

    #[test]
    fn what_cannot_be_a_service_a_crate_and_a_contract_at_once_is_refused() {
        let long = "a".repeat(64);
        for name in ["", "Inventory", "inven_tory", "a b", "../a", "a/b", "ä", &long] {
            assert!(matches!(name.parse::<PackageName>(), Err(InvalidPackageName::Service(_))), "{name}");
        }
        for name in ["2fast", "-a", "a-", "a--b", "-"] {
            assert_eq!(name.parse::<PackageName>(), Err(InvalidPackageName::NotWords), "{name}");
        }
        for name in ["fn", "async", "gen", "self", "test", "std", "core", "proc-macro", "deps"] {
            assert_eq!(name.parse::<PackageName>(), Err(InvalidPackageName::Reserved), "{name}");
        }
        for name in ["customer", "order", "query", "registry"] {
            assert_eq!(name.parse::<PackageName>(), Err(InvalidPackageName::Reserved), "a mesh has it: {name}");
        }
        for name in ["meshwork", "meshwork-events", "tonic", "tonic-prost", "tokio", "clap", "protox"] {
            assert_eq!(name.parse::<PackageName>(), Err(InvalidPackageName::Dependency), "{name}");
        }
    }
}
