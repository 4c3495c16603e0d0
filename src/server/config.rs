//! A server's identity: its name, address and place in the mesh; and how it behaves.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderValue;

use super::{Error, Limits};
use crate::{
    contract::meshwork::registry::v1::Instance,
    instance::{DEFAULT_LEASE_TTL, DEFAULT_WEIGHT, InvalidField, WEIGHT, check_id, check_instance, check_lease_ttl},
};

/// The identity of a server, and how it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The service's name in the mesh, 1-63 characters of `[a-z0-9-]`.
    pub service: String,
    /// This instance, unique within the service, 1-128 visible ASCII characters. Default: a new UUIDv7.
    pub instance_id: String,
    /// Where others reach it, `host:port`.
    pub advertise: String,
    /// Its version, in the team's own scheme. Default: empty, for unknown.
    pub version: String,
    /// The failure zone it runs in. Default: empty, for unknown.
    pub zone: String,
    /// Its share of the load relative to the others, 1-1000. Default 100. Where weights differ, a client draws several times for a
    /// call: about the largest weight divided by the mean one. Beyond 32 times the mean an instance gets less than its share.
    pub weight: u32,
    /// Free labels. Default none.
    pub labels: BTreeMap<String, String>,
    /// How long the instance stays registered without a sign of life, 1-300 s; renewed at a third of it. Default 10 s.
    pub lease_ttl: Duration,
    /// How long calls that are under way may take to finish when the server leaves. Default 30 s.
    pub drain_limit: Duration,
    /// Whether calls that the authorization rules do not allow are refused, or only counted and logged (a dry run). Default: refused.
    pub authorization: Enforcement,
    /// Its limits.
    pub limits: Limits,
}

impl Config {
    /// The defaults for a service that is reached at `advertise` (`host:port`).
    pub fn new(service: impl Into<String>, advertise: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            instance_id: crate::id::new_id().to_string(),
            advertise: advertise.into(),
            version: String::new(),
            zone: String::new(),
            weight: DEFAULT_WEIGHT,
            labels: BTreeMap::new(),
            lease_ttl: DEFAULT_LEASE_TTL,
            drain_limit: Duration::from_secs(30),
            authorization: Enforcement::default(),
            limits: Limits::default(),
        }
    }

    /// Whether a registry would accept the instance. [`Server::serve`](super::Server::serve) checks it too, if it is to be
    /// announced; a process does it before it makes anything.
    ///
    /// # Errors
    /// The first field that is invalid.
    pub fn check(&self) -> Result<(), InvalidField> {
        self.check_as(&self.instance())
    }

    /// As [`check`](Self::check), with all that the instance announces.
    pub(super) fn check_as(&self, instance: &Instance) -> Result<(), InvalidField> {
        // In the contract a weight of 0 stands for the default.
        if !WEIGHT.contains(&self.weight) {
            return Err(InvalidField::new("weight", "must be 1-1000"));
        }
        check_lease_ttl(self.lease_ttl).map_err(|problem| InvalidField::new("lease_ttl", problem))?;
        check_instance(instance).into_iter().next().map_or(Ok(()), Err)
    }

    /// The instance, without what its services add.
    pub(super) fn instance(&self) -> Instance {
        Instance {
            service: self.service.clone(),
            instance_id: self.instance_id.clone(),
            address: self.advertise.clone(),
            version: self.version.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            labels: self.labels.clone().into_iter().collect(),
            ..Instance::default()
        }
    }

    /// The instance id as a header's value.
    pub(super) fn instance_header(&self) -> Result<HeaderValue, Error> {
        check_id(&self.instance_id).map_err(|problem| InvalidField::new("instance_id", problem))?;
        Ok(HeaderValue::from_str(&self.instance_id).expect("visible ASCII characters are a header's value"))
    }
}

/// What happens to a call that the rules do not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is refused.
    #[default]
    Enforce,
    /// It is counted and logged, and let through: a dry run.
    Log,
}
