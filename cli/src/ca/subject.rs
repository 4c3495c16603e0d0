//! Whom a certificate is for, as `meshwork ca issue` is told.

use std::{fmt, net::IpAddr, str::FromStr};

use meshwork::{
    identity::SpiffeId,
    service_name::{InvalidServiceName, check_service_name},
};

/// Bytes of a name and of each of its parts (RFC 1035, 2.3.4).
const MAX_DNS_NAME: usize = 253;
const MAX_DNS_LABEL: usize = 63;

/// A service or an operator, and the names and addresses at which its server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    path: String,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

/// A text that is not a [`Subject`], or a name that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// Neither a service nor an operator.
    #[error("must be service/NAME or operator/NAME")]
    Kind,
    /// No service can be called that.
    #[error("the service's name {0}")]
    Service(InvalidServiceName),
    /// No operator can be called that.
    #[error("an operator's name must be characters of [a-zA-Z0-9._-]")]
    Operator,
    /// No host can be called that.
    #[error("must be the name of a host: lowercase letters, digits, hyphens and dots, without a wildcard")]
    Dns,
    /// A stock client would take an operator for a service.
    #[error("only a service has names and addresses of its own; an operator is never a server")]
    NotAServer,
}

impl Subject {
    /// A service, reached by its own name: stock clients look at DNS names only.
    ///
    /// # Errors
    /// No service can be called that.
    pub fn service(name: &str) -> Result<Self, InvalidSubject> {
        check_service_name(name).map_err(InvalidSubject::Service)?;
        // A mesh allows more than DNS does, such as a hyphen at the end.
        let dns = check_dns_name(name).map_or_else(|_| Vec::new(), |()| vec![name.to_owned()]);
        Ok(Self { path: format!("service/{name}"), dns, ips: Vec::new() })
    }

    /// An operator. Its certificate has no DNS name: it could be taken for the service of that name.
    ///
    /// # Errors
    /// No operator can be called that.
    pub fn operator(name: &str) -> Result<Self, InvalidSubject> {
        let path = format!("operator/{name}");
        let id: Result<SpiffeId, _> = format!("spiffe://any/{path}").parse();
        if id.is_ok_and(|id| id.is_operator()) {
            Ok(Self { path, dns: Vec::new(), ips: Vec::new() })
        } else {
            Err(InvalidSubject::Operator)
        }
    }

    /// With another name of its host, such as `order.shop.svc.cluster.local` or `localhost`.
    ///
    /// # Errors
    /// It is not the name of a host, or this is not a service.
    pub fn with_dns(mut self, name: &str) -> Result<Self, InvalidSubject> {
        self.check_server()?;
        check_dns_name(name)?;
        if !self.dns.iter().any(|known| known == name) {
            self.dns.push(name.to_owned());
        }
        Ok(self)
    }

    /// With an address of its host.
    ///
    /// # Errors
    /// This is not a service.
    pub fn with_ip(mut self, ip: IpAddr) -> Result<Self, InvalidSubject> {
        self.check_server()?;
        if !self.ips.contains(&ip) {
            self.ips.push(ip);
        }
        Ok(self)
    }

    fn check_server(&self) -> Result<(), InvalidSubject> {
        if self.path.starts_with("service/") { Ok(()) } else { Err(InvalidSubject::NotAServer) }
    }

    /// Its identity within a trust domain: `service/order`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The names of its host.
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// The addresses of its host.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        match text.split_once('/') {
            Some(("service", name)) => Self::service(name),
            Some(("operator", name)) => Self::operator(name),
            Some(_) | None => Err(InvalidSubject::Kind),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Whether every verifier reads this as the name of a host. A wildcard would be a name of other services too.
pub(crate) fn check_dns_name(name: &str) -> Result<(), InvalidSubject> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_label = |label: &str| {
        (1..=MAX_DNS_LABEL).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // One that ends in a number would be read as an address.
    let ends_in_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if name.len() <= MAX_DNS_NAME && name.split('.').all(is_label) && !ends_in_number {
        Ok(())
    } else {
        Err(InvalidSubject::Dns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_service_with_its_name_as_a_host_or_an_operator_without() {
        let order: Subject = "service/order".parse().expect("a service");
        assert_eq!((order.path(), order.dns()), ("service/order", ["order".to_owned()].as_slice()));
        let ada: Subject = "operator/Ada.L".parse().expect("an operator");
        assert_eq!((ada.path(), ada.dns()), ("operator/Ada.L", [].as_slice()));
        assert_eq!(ada.clone().with_dns("ada"), Err(InvalidSubject::NotAServer));
        assert_eq!(ada.with_ip([127, 0, 0, 1].into()), Err(InvalidSubject::NotAServer));
        for (bad, problem) in [
            ("order", InvalidSubject::Kind),
            ("services/order", InvalidSubject::Kind),
            ("spiffe://shop.test/service/order", InvalidSubject::Kind),
            ("service/", InvalidSubject::Service(InvalidServiceName::Empty)),
            ("service/Order", InvalidSubject::Service(InvalidServiceName::Malformed)),
            ("service/order/x", InvalidSubject::Service(InvalidServiceName::Malformed)),
            ("operator/", InvalidSubject::Operator),
            ("operator/..", InvalidSubject::Operator),
            ("operator/a/b", InvalidSubject::Operator),
            ("operator/ada lovelace", InvalidSubject::Operator),
        ] {
            assert_eq!(bad.parse::<Subject>(), Err(problem), "{bad}");
        }
    }

    #[test]
    fn names_of_hosts_are_added_once_and_only_those_that_every_verifier_reads() {
        let order = Subject::service("order").expect("a service");
        let more = order.with_dns("order.shop.svc").and_then(|order| order.with_dns("order")).expect("good names");
        assert_eq!(more.dns(), ["order", "order.shop.svc"]);
        for bad in ["", "*.shop", "Order", "a..b", ".a", "a.", "-a", "a-", "a_b", "a b", "10.0.0.1", &"a".repeat(64)] {
            assert_eq!(check_dns_name(bad), Err(InvalidSubject::Dns), "{bad}");
        }
        assert_eq!(Subject::service("-order").expect("a mesh allows it").dns(), [] as [String; 0]);
    }
}
